"""Tags of MP3, FLAC, Ogg, MP4, AIFF, WMA and WAV, by tinytag.

tinytag is small, of Python alone and under the MIT licence; mutagen, the usual choice, is under the
GPL and would have to be installed by hand. The tests write tags with mutagen.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO, cast

from earshot.metadata.fields import Said, plain

# Tags lie at the start or the end; this is enough for those behind a large picture.
MAX_READ_BYTES = 8 << 20


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


def read_tags(path: Path) -> Said:
    """What a file's tags say; nothing where there are none or they are damaged."""
    from tinytag import TinyTag

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
