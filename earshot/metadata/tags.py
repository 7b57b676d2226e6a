"""Tags of MP3, FLAC, Ogg, MP4, AIFF, WMA and WAV, by tinytag.

tinytag is small, of Python alone and under the MIT licence; mutagen, the usual choice, is under the
GPL and would have to be installed by hand. The tests write tags with mutagen.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO, cast

from tinytag import OtherFields, TinyTag, tinytag

from earshot.metadata.fields import Said, plain

# Tags lie at the start or the end; this is enough for those behind a large picture.
MAX_READ_BYTES = 8 << 20
# tinytag compares each value of a name with all before it: of 200,000 it would take minutes.
MAX_VALUES = 100


class _Bounded(io.RawIOBase):
    """A file that ends for its reader after `MAX_READ_BYTES`, wherever it reads them.

    No header can make it read more, and a long recording is not walked to its end.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.left = file, MAX_READ_BYTES

    def read(self, size: int = -1, /) -> bytes:
        content = self.file.read(self.left if size < 0 else min(size, self.left))
        self.left -= len(content)
        return content

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()


class _FewValues(list[str]):
    """The first values of one name."""

    def append(self, value: str, /) -> None:
        if len(self) < MAX_VALUES:
            super().append(value)


class _FewOfEach(OtherFields):
    """Names with their first values."""

    def __setitem__(self, name: str, values: list[str], /) -> None:
        super().__setitem__(name, _FewValues(values))


# tinytag makes its own, and asks nobody how many values they may hold.
tinytag.OtherFields = _FewOfEach  # type: ignore[misc]


def read_tags(path: Path) -> Said:
    """What a file's tags say; nothing where there are none or they are damaged."""
    try:
        with path.open("rb", buffering=1 << 16) as file:
            bounded = cast("BinaryIO", _Bounded(file))
            tags = TinyTag.get(file_obj=bounded, duration=False).as_dict()
    except Exception:  # noqa: BLE001 - a damaged tag is no tag, whatever the library says of it
        return {}
    said: dict[str, list[str]] = {}
    for name, values in tags.items():
        if isinstance(values, list):
            said.setdefault(plain(name), []).extend(map(str, values))
    return said
