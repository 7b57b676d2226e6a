"""The chunks of WAV files that field recorders and sound libraries write.

`bext` is EBU Tech 3285 (Broadcast Wave), `iXML` the open format of http://www.ixml.info, `LIST`
`INFO` that of the RIFF specification. RF64 and BW64 (EBU Tech 3306) are walked alike.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import BinaryIO
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from earshot.metadata.fields import Said, plain

# Longer chunks of text are no text; and no header makes more than this be read.
MAX_CHUNK_BYTES = 4 << 20
MAX_CHUNKS = 1000
KEPT = (b"bext", b"iXML", b"LIST")
BEXT = struct.Struct("<256s32s32s10s")
UNKNOWN_SIZE = 0xFFFFFFFF
# Parts of iXML whose notes are not about the sound.
TECHNICAL = ("SPEED", "SYNC_POINT_LIST", "HISTORY", "FILE_SET", "TRACK_LIST", "LOCATION")
# Recorders write `sSCENE=12` and the like into the description, a line each.
RECORDER_LINE = re.compile(r"^\s*[a-z]?([A-Z]{2,}\d*)=(.*)$", re.M)


def read_riff(path: Path) -> list[Said]:
    """What iXML, `bext` and INFO say, in this order; nothing for other and for damaged files."""
    chunks: dict[bytes, bytes] = {}
    with suppress(OSError, ValueError, struct.error), path.open("rb") as file:
        for name, content in _chunks(file):
            if name != b"LIST" or content.startswith(b"INFO"):
                chunks.setdefault(name, content)
    said: list[Said] = []
    if b"iXML" in chunks:
        said.append(_ixml(chunks[b"iXML"]))
    if len(chunks.get(b"bext", b"")) >= BEXT.size:
        said.append(_bext(chunks[b"bext"]))
    if b"LIST" in chunks:
        said.append(_info(chunks[b"LIST"][4:]))
    return said


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    head = file.read(12)
    if head[:4] not in (b"RIFF", b"RF64", b"BW64") or head[8:] != b"WAVE":
        return
    data_bytes = 0
    for _ in range(MAX_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            return
        name, size = head[:4], int.from_bytes(head[4:], "little")
        if name == b"data" and size == UNKNOWN_SIZE:
            size = data_bytes
        start = file.tell()
        if name == b"ds64":  # After the size of the whole file comes that of the audio.
            data_bytes = struct.unpack("<8xQ", file.read(16))[0]
        elif name in KEPT and size <= MAX_CHUNK_BYTES:
            yield name, file.read(size)
        file.seek(start + size + size % 2)


def _text(content: bytes) -> str:
    """Text up to its end mark; what is not UTF-8 was written by an older program."""
    content = content.split(b"\0", 1)[0]
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def _bext(content: bytes) -> Said:
    description, originator, _, date = map(_text, BEXT.unpack_from(content))
    lines = dict(RECORDER_LINE.findall(description))
    return {
        "description": [RECORDER_LINE.sub("", description)],
        "note": [lines.get("NOTE", "")],
        "scene": [_scene(lines.get("SCENE", ""), lines.get("TAKE", ""))],
        "originator": [originator],
        "originationdate": [date],
    }


def _info(content: bytes) -> Said:
    said: dict[str, list[str]] = {}
    start = 0
    while start + 8 <= len(content):
        size = int.from_bytes(content[start + 4 : start + 8], "little")
        name = content[start : start + 4].decode("latin-1")
        said.setdefault(plain(name), []).append(_text(content[start + 8 : start + 8 + size]))
        start += 8 + size + size % 2
    return said


def _ixml(content: bytes) -> Said:
    try:
        root: Element = fromstring(content.rstrip(b"\0 \r\n"), forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError):
        return {}
    said: dict[str, list[str]] = {}
    for element in chain.from_iterable(part.iter() for part in root if part.tag not in TECHNICAL):
        if element.text and element.text.strip():
            said.setdefault(plain(element.tag.rpartition("}")[2]), []).append(element.text)
    for attribute in root.iter("ATTR"):  # Steinberg's list of names and values
        name, value = attribute.findtext("NAME"), attribute.findtext("VALUE")
        if name and value:
            said.setdefault(plain(name.removeprefix("Media")), []).append(value)
    scenes, takes = said.get("scene", [""]), said.get("take", [""])
    return {**said, "scene": [_scene(scenes[0], takes[0])]}


def _scene(scene: str, take: str) -> str:
    """A scene's name as a title; a number alone tells nothing without saying what it counts."""
    scene, take = scene.strip(), take.strip()
    return " ".join([f"scene {scene}", f"take {take}" if take else ""]).strip() if scene else ""
