"""Where files, segments and vectors are kept: one role (`earshot.types.Store`), a kind per place.

A store is named by its address: `:memory:`, a folder, an object store (`s3://bucket/folder`) or a
collection in Milvus (`milvus://host:19530/collection`, `milvus:file.db`).
The heavy libraries behind a kind are imported when a store of that kind is opened.
"""

from __future__ import annotations

from earshot.store.checks import is_storable
from earshot.store.growth import Growing
from earshot.store.lance import LanceStore
from earshot.store.memory import MemoryStore
from earshot.store.milvus import MilvusStore
from earshot.types import EarshotError, Manifest, Store

__all__ = [
    "STORES",
    "Growing",
    "LanceStore",
    "MemoryStore",
    "MilvusStore",
    "create_store",
    "is_storable",
    "open_store",
    "require_lasting",
    "require_versions",
    "store_exists",
]

MEMORY = ":memory:"
OBJECT_STORES = ("s3", "gs", "az")
STORES: dict[str, type[MemoryStore] | type[LanceStore] | type[MilvusStore]] = {
    "memory": MemoryStore,
    "lance": LanceStore,
    "milvus": MilvusStore,
}


def open_store(uri: str) -> Store:
    """Open the store at `uri`.

    Raises:
        EarshotError: nothing is there, or it is damaged, or it is not a store.
    """
    return STORES[_kind(uri)].open(uri)


def require_lasting(uri: str) -> None:
    """Refuse a place that ends with its process.

    Raises:
        EarshotError: it is in memory.
    """
    if _kind(uri) == "memory":
        raise EarshotError(f"{uri} ends with this command; give a folder for the index")


def require_versions(uri: str) -> None:
    """Refuse a place that keeps no versions of an index.

    Raises:
        EarshotError: it is none of LanceDB's.
    """
    if _kind(uri) != "lance":
        raise EarshotError(
            f"{uri} keeps no earlier states of an index, which this needs; a folder or s3://… does"
        )


def store_exists(uri: str) -> bool:
    """Whether there is a store at `uri`, in whatever state; asking makes nothing."""
    return STORES[_kind(uri)].exists(uri)


def create_store(uri: str, manifest: Manifest) -> Store:
    """Make an empty store at `uri` for the vectors that `manifest` describes.

    Raises:
        EarshotError: a store is there already, or the place cannot be written.
    """
    return STORES[_kind(uri)].create(uri, manifest)


def _kind(uri: str) -> str:
    if uri == MEMORY:
        return "memory"
    if uri.startswith("milvus:"):
        return "milvus"
    scheme, separator, _ = uri.partition("://")
    if not uri or (separator and scheme not in OBJECT_STORES):
        allowed = ", ".join(f"{scheme}://…" for scheme in (*OBJECT_STORES, "milvus"))
        raise EarshotError(f"{uri!r} is no place for an index; use a folder, {allowed} or {MEMORY}")
    return "lance"
