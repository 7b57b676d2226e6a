"""Repositories of a hub: from its cache on this machine, else over https."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from earshot.text import TOKENIZER_FILES
from earshot.types import EarshotError

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def from_hub(repository: str, revision: str, files: Sequence[str]) -> Path:
    """The folder of a hub repository: from the hub's cache if it has all of it, else from the hub.

    Weights are taken as safetensors where there are any, else as torch writes them.

    Raises:
        EarshotError: neither has it, what is in the cache is damaged, or the hub's address is
            not safe.
    """
    from huggingface_hub import constants, snapshot_download

    failed: Exception | None = None
    for offline in (True, False):
        if not offline:
            require_safe(constants.ENDPOINT)
        for weights in ("*.safetensors", "pytorch_model*.bin"):
            options: dict[str, Any] = {"revision": revision, "allow_patterns": [*files, weights]}
            try:
                folder = Path(snapshot_download(repository, local_files_only=offline, **options))
            except (OSError, ValueError) as error:
                failed = error
                break
            if is_whole(folder, weights) if offline else any(folder.glob(weights)):
                return folder
    reason = f"the hub did not give it ({type(failed).__name__})" if failed else "it has no weights"
    raise EarshotError(
        f"{repository} is not here and {reason}; download it elsewhere and name its folder"
    ) from failed


def require_safe(endpoint: str) -> None:
    """Refuse a hub whose weights others could exchange on their way.

    Raises:
        EarshotError: it is asked neither over https nor on this machine.
    """
    try:
        address = urlsplit(endpoint)
        safe = address.scheme == "https" or (
            address.scheme == "http" and address.hostname in LOOPBACK
        )
    except ValueError:
        safe = False
    if not safe:
        raise EarshotError(
            f"HF_ENDPOINT is {endpoint!r}, from where weights cannot be fetched safely; "
            f"give a https address, or http on this machine"
        )


def is_whole(folder: Path, weights: str) -> bool:
    """Whether a copy of a repository has settings, a tokenizer and all of its weights' files.

    Raises:
        EarshotError: its index of weights is damaged.
    """
    shards = {shard for index in folder.glob(f"{weights}.index.json") for shard in _shards(index)}
    some = all(any(folder.glob(pattern)) for pattern in ("config.json", weights))
    words = any(True for name in TOKENIZER_FILES for _ in folder.glob(name))
    return some and words and all((folder / shard).is_file() for shard in shards)


def _shards(index: Path) -> list[str]:
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        return [str(shard) for shard in content["weight_map"].values()]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        # The hub's library keeps what it has: parts of its folder are not fetched again.
        raise EarshotError(
            f"{index} is damaged ({str(error)[:80]}); delete {index.parents[2]} and run it again"
        ) from error
