"""Sounds that visitors bring to search by: kept in a passing folder, the latest few alone."""

from __future__ import annotations

import shutil
import uuid
import weakref
from collections import OrderedDict
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from threading import Lock
from typing import BinaryIO

from earshot.audio import AUDIO_SUFFIXES, AudioInfo
from earshot.examine import Examiner, examine
from earshot.files import sha256_of
from earshot.files.passing import passing_folder
from earshot.types import AudioError, FileRecord, FileState

PREFIX = "upload-"
MAX_NAME_LETTERS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A sound that was brought: its id, the name that it had, and what it is."""

    id: str
    name: str
    record: FileRecord


class Uploads:
    """The latest `limit` uploads; the folder is gone when the server ends, or begins anew.

    Each is decoded once before it is kept: with `isolated` in a process that it may end.
    """

    def __init__(self, limit: int, *, isolated: bool = False) -> None:
        self._limit, self._lock = limit, Lock()
        self._examiner = Examiner() if isolated else None
        until_done = ExitStack()
        self._folder = until_done.enter_context(passing_folder())
        self._forget = weakref.finalize(self, until_done.close)
        self._kept: OrderedDict[str, Upload] = OrderedDict()

    def add(self, source: BinaryIO, file_name: str) -> Upload:
        """Keep a sound.

        Of its name the letters are shown and a known suffix is used; neither names our file.

        Raises:
            AudioError: it is no audio, damaged, longer than ten minutes, or ends its decoder.
        """
        shown = PurePath(file_name.replace("\\", "/")).name[:MAX_NAME_LETTERS] or "sound"
        suffix = PurePath(shown).suffix.lower()
        upload_id = f"{PREFIX}{uuid.uuid4().hex}"
        path = Path(self._folder, upload_id + (suffix if suffix in AUDIO_SUFFIXES else ""))
        try:
            with path.open("xb") as file:
                shutil.copyfileobj(source, file)
            record = _record(path, (self._examiner or examine)(str(path)))
        except BaseException as error:
            path.unlink(missing_ok=True)
            if isinstance(error, AudioError):
                raise AudioError(shown, error.reason) from error
            raise
        upload = Upload(id=upload_id, name=shown, record=record)
        with self._lock:
            self._kept[upload_id] = upload
            while len(self._kept) > self._limit:
                _, oldest = self._kept.popitem(last=False)
                with suppress(OSError):
                    Path(oldest.record.state.path).unlink()
        return upload

    def find(self, upload_id: str) -> Upload | None:
        """The upload of an id, if it is still kept."""
        with self._lock:
            if upload_id in self._kept:
                self._kept.move_to_end(upload_id)
            return self._kept.get(upload_id)

    def close(self) -> None:
        """Forget all of them."""
        if self._examiner is not None:
            self._examiner.close()
        self._kept.clear()
        self._forget()


def _record(path: Path, info: AudioInfo) -> FileRecord:
    state = FileState(
        path=str(path),
        size_bytes=path.stat().st_size,
        mtime_ns=0,
        ctime_ns=0,
        sha256=sha256_of(path),
    )
    return FileRecord(
        state=state,
        duration_s=info.duration_s,
        sample_rate_hz=info.sample_rate_hz,
        channels=info.channels,
    )
