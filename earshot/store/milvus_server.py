"""The way to Milvus: addresses, connections, the collection, and what goes wrong in one line."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

from earshot.types import EarshotError, Manifest

FORMAT = 2
PROPERTY = "earshot.manifest"
COLLECTION = "segments"
MOST_TEXT = 65_535
MOST_LABELS = 1_024
MOST_PIECES = 64
NAME = re.compile(r"[A-Za-z_]\w{0,254}")
TIMEOUT_S = 10
# The client pings every 10 s, more than milvus-lite allows: it hangs up, and both log it.
PATIENT = {"grpc.keepalive_time_ms": 600_000, "grpc.keepalive_permit_without_calls": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a collection lies: a server's, or a file's of milvus-lite."""

    server: str
    collection: str

    @classmethod
    def of(cls, uri: str) -> Address:
        """Read `milvus://host:port/collection` or `milvus:file.db`.

        Raises:
            EarshotError: it is neither.
        """
        rest = uri.removeprefix("milvus:")
        host, _, name = rest.removeprefix("//").partition("/")
        if rest.startswith("//") and host and NAME.fullmatch(name):
            return cls(server=f"http://{host}", collection=name)
        if not rest.startswith("//") and rest.endswith(".db"):
            return cls(server=str(Path(rest).resolve()), collection=COLLECTION)
        raise EarshotError(
            f"{uri!r} is no place in Milvus; write milvus://HOST:19530/COLLECTION or milvus:FILE.db"
        )

    @property
    def is_file(self) -> bool:
        """Whether it is a file's of milvus-lite."""
        return not self.server.startswith("http://")

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self.server)


def connect(uri: str) -> Any:
    """A client; asking makes a file's folder.

    Raises:
        EarshotError: the client is not installed, or nobody answers.
    """
    client = client_package(uri)
    # What they log, with tracebacks, is raised as well.
    for name in ("pymilvus", "milvus_lite"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    address = Address.of(uri)
    if address.is_file:
        address.path.parent.mkdir(parents=True, exist_ok=True)
    with explained(uri, "reach"):
        return client.MilvusClient(address.server, timeout=TIMEOUT_S, grpc_options=PATIENT)


def client_package(uri: str) -> Any:
    """The package `pymilvus`.

    Raises:
        EarshotError: it is not installed.
    """
    try:
        import pymilvus
    except ImportError as error:
        raise EarshotError(
            f"{uri}: an index in Milvus needs its client; run: pip install 'earshot[milvus]'"
        ) from error
    return pymilvus


def collection_schema(client: Any, name: str, manifest: Manifest) -> None:
    """Make the collection; its properties hold the manifest."""
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=80)
    for column in ("path", "path_key", "date_key"):
        schema.add_field(column, DataType.VARCHAR, max_length=MOST_TEXT)
    for column in ("number", "sample_rate_hz", "channels"):
        schema.add_field(column, DataType.INT64)
    for column in ("start_s", "end_s", "duration_s"):
        schema.add_field(column, DataType.DOUBLE)
    labels = {"element_type": DataType.VARCHAR, "max_capacity": MOST_LABELS, "max_length": 32}
    schema.add_field("facets_key", DataType.ARRAY, **labels)
    pieces = {"element_type": DataType.VARCHAR, "max_capacity": MOST_PIECES}
    schema.add_field("about", DataType.ARRAY, **pieces, max_length=MOST_TEXT)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=manifest.dimension)
    indexes = client.prepare_index_params()
    indexes.add_index("vector", index_type="AUTOINDEX", metric_type="COSINE")
    # Readers see what was acknowledged before they ask.
    about = json.dumps({"format": FORMAT, **asdict(manifest)})
    client.create_collection(
        name,
        schema=schema,
        index_params=indexes,
        consistency_level="Strong",
        properties={PROPERTY: about},
    )


@contextmanager
def explained(uri: str, task: str) -> Iterator[None]:
    """Turn what Milvus raises into one line that says where, what and what to do."""
    failure = client_package(uri).MilvusException
    try:
        yield
    except failure as error:
        cause = shorten(str(error.message), 200) or type(error).__name__
        if "Fail connecting" in cause:
            cause = "nobody answers there"
        raise EarshotError(
            f"{uri}: cannot {task} the index: {cause}. Check the address and that Milvus runs; a "
            "file can be opened by one process at a time"
        ) from error
