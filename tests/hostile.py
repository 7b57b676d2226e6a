"""A corpus of hostile recordings, the same for the same seed: whatever a disk may hold as `.wav`.

Every case is made from a good file of its format, or from nothing, and is told apart from all
others by its content. What is to become of it is one of three: `good` is indexed, `broken` is
reported with a reason, `either` is one of the two, as a flipped bit may hit what nobody reads.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import os
import socket
import struct
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from test_audio import FORMATS, MEDIA, encode, noise, write

Fate = Literal["good", "broken", "either"]

CUTS = 50
FLIPS = 24
DURATION_S = 0.4
# The slack of their lengths is a second: shorter ones are whole however they are cut.
MEDIA_S = 2.5
# Bytes of a `.wav` header before its samples, and what a cut may leave unnoticed at the end.
SURELY_CUT = {".webm": 0.5, ".mka": 0.5, ".wma": 0.5, ".mp4": 0.6, ".aac": 0.0, ".mp3": 0.6}
RATE_HZ = 48_000
GIANT_BYTES = 6 << 20
OGG_POLYNOMIAL = 0x04C11DB7


@dataclass(frozen=True, kw_only=True)
class Case:
    """One file to be: `name` is unique, `suffix` is what it claims to be."""

    name: str
    suffix: str
    content: bytes
    fate: Fate = "either"


@dataclass(frozen=True, kw_only=True)
class Original:
    """A good file of one format."""

    name: str
    suffix: str
    content: bytes


def originals(folder: Path) -> list[Original]:
    """A good file of every format that can be written here."""
    made = []
    for number, (suffix, container, codec, _) in enumerate(FORMATS):
        path = folder / f"original-{number}{suffix}"
        write(path, noise(DURATION_S, 2), format=container, subtype=codec)
        made.append(Original(name=f"{container}-{codec}", suffix=suffix, content=path.read_bytes()))
    if importlib.util.find_spec("av"):
        for suffix, codec, _ in MEDIA:
            path = encode(folder / f"original-{codec}{suffix}", noise(MEDIA_S, 2), codec)
            name = f"{suffix[1:]}-{codec}"
            made.append(Original(name=name, suffix=suffix, content=path.read_bytes()))
    return made


def all_cases(folder: Path, seed: int, formats: int | None = None) -> list[Case]:
    """Every case with a content of its own, in one order; of all formats, or of some."""
    random = np.random.default_rng(seed)
    good = originals(folder)
    if formats is not None:
        good = [good[i] for i in sorted(random.permutation(len(good))[:formats])]
    cases: list[Case] = []
    cases += (
        Case(name=f"good-{o.name}", suffix=o.suffix, content=o.content, fate="good") for o in good
    )
    for original in good:
        cases += truncated(original)
        cases += flipped(original, random)
        cases += lying(original, random)
        cases += extended(original, random)
    for part in (lengths, floats, bombs, laden, disguised):
        cases += part(folder)
    seen: set[bytes] = set()
    distinct = []
    for case in cases:
        digest = hashlib.sha256(case.content).digest()
        if digest not in seen:
            seen.add(digest)
            distinct.append(case)
    return distinct


def truncated(original: Original) -> Iterator[Case]:
    """Cut off at so many points, of which half lie in the first 200 bytes, where headers are."""
    content = original.content
    points = [round(i * len(content) / CUTS) for i in range(CUTS // 2)]
    points += [round(i * 200 / (CUTS / 2)) for i in range(CUTS // 2)]
    points += [round((0.5 + i / CUTS) * len(content)) for i in range(CUTS // 2)]
    surely = SURELY_CUT.get(original.suffix, 0.85) * len(content)
    for point in sorted({p for p in points if p < len(content)}):
        yield Case(
            name=f"cut-{original.name}-{point}",
            suffix=original.suffix,
            content=content[:point],
            fate="broken" if point < surely else "either",
        )


def flipped(original: Original, random: np.random.Generator) -> Iterator[Case]:
    """One to thousands of bits turned over, in the header or anywhere."""
    for number in range(FLIPS):
        content = bytearray(original.content)
        reach = [128, 1024, len(content)][number % 3]
        bits = int(2 ** random.uniform(0, 10))
        for at in random.integers(0, min(reach, len(content)), bits):
            content[at] ^= 1 << int(random.integers(8))
        yield Case(
            name=f"flip-{original.name}-{number}", suffix=original.suffix, content=bytes(content)
        )


# Where headers state what: a mark, how far behind its start, how many bytes, which end first.
LITTLE_FIELDS = [
    ("tag", b"fmt ", 8, 2),
    ("channels", b"fmt ", 10, 2),
    ("rate", b"fmt ", 12, 4),
    ("byte-rate", b"fmt ", 16, 4),
    ("align", b"fmt ", 20, 2),
    ("bits", b"fmt ", 22, 2),
    ("fmt-size", b"fmt ", 4, 4),
    ("data-size", b"data", 4, 4),
    ("riff-size", b"RIFF", 4, 4),
    ("ds64-riff", b"ds64", 8, 8),
    ("ds64-data", b"ds64", 16, 8),
    ("ds64-samples", b"ds64", 24, 8),
    ("opus-channels", b"OpusHead", 9, 1),
    ("opus-skip", b"OpusHead", 10, 2),
    ("opus-rate", b"OpusHead", 12, 4),
    ("opus-mapping", b"OpusHead", 18, 1),
    ("vorbis-channels", b"\x01vorbis", 11, 1),
    ("vorbis-rate", b"\x01vorbis", 12, 4),
    ("vorbis-blocks", b"\x01vorbis", 28, 1),
    ("page-position", b"OggS", 6, 8),
    ("page-segments", b"OggS", 26, 1),
]
BIG_FIELDS = [
    ("aiff-channels", b"COMM", 8, 2),
    ("aiff-frames", b"COMM", 10, 4),
    ("aiff-bits", b"COMM", 14, 2),
    ("aiff-rate", b"COMM", 16, 4),
    ("aiff-size", b"SSND", 4, 4),
    ("aiff-offset", b"SSND", 8, 4),
    ("form-size", b"FORM", 4, 4),
    ("au-offset", b".snd", 4, 4),
    ("au-size", b".snd", 8, 4),
    ("au-encoding", b".snd", 12, 4),
    ("au-rate", b".snd", 16, 4),
    ("au-channels", b".snd", 20, 4),
    ("caf-rate", b"desc", 12, 8),
    ("caf-kind", b"desc", 20, 4),
    ("caf-flags", b"desc", 24, 4),
    ("caf-packet-bytes", b"desc", 28, 4),
    ("caf-packet-frames", b"desc", 32, 4),
    ("caf-channels", b"desc", 36, 4),
    ("caf-bits", b"desc", 40, 4),
    ("caf-size", b"data", 4, 8),
    ("flac-block", b"fLaC", 8, 4),
    ("flac-frame", b"fLaC", 12, 6),
    ("flac-rate-channels-bits", b"fLaC", 18, 4),
    ("flac-samples", b"fLaC", 21, 5),
    ("xing-frames", b"Xing", 8, 4),
    ("info-frames", b"Info", 8, 4),
    ("mdhd-scale", b"mdhd", 16, 4),
    ("mdhd-duration", b"mdhd", 20, 4),
    ("mvhd-duration", b"mvhd", 20, 4),
    ("mp4-channels", b"mp4a", 20, 2),
    ("mp4-rate", b"mp4a", 28, 4),
    ("stsz-size", b"stsz", 8, 4),
    ("stsz-count", b"stsz", 12, 4),
    ("stts-count", b"stts", 12, 4),
    ("stts-delta", b"stts", 16, 4),
    ("stsc-count", b"stsc", 8, 4),
    ("stco-place", b"stco", 12, 4),
    ("ebml-rate", b"\xb5\x88", 2, 8),
    ("ebml-duration", b"\x44\x89", 3, 8),
    ("ebml-channels", b"\x9f\x81", 2, 1),
]


def lying(original: Original, random: np.random.Generator) -> Iterator[Case]:
    """Each field of the header at its extremes, beside its truth, and anywhere."""
    content = original.content
    fields = [(field, "little") for field in LITTLE_FIELDS] + [(f, "big") for f in BIG_FIELDS]
    for (what, mark, ahead, size), order in fields:
        at = content.find(mark, 0, 4096) + ahead
        if at < ahead or at + size > len(content):
            continue
        most = 256**size - 1
        truth = int.from_bytes(content[at : at + size], order)
        lies = [0, 1, 2, most, most // 2, most // 2 + 1, truth + 1, truth - 1, truth * 3]
        lies.append(int(random.integers(2 ** min(8 * size, 62))))
        for lie in {value & most for value in lies} - {truth}:
            lied = content[:at] + lie.to_bytes(size, order) + content[at + size :]
            if original.content.startswith(b"OggS"):
                lied = with_checksums(lied)
            name = f"lie-{original.name}-{what}-{lie:x}"
            yield Case(name=name, suffix=original.suffix, content=lied)


def extended(original: Original, random: np.random.Generator) -> Iterator[Case]:
    """Noise, nothing or the file itself once more before or behind a good file."""
    noise_, nothing, itself = random.bytes(3000), bytes(3000), original.content
    for what, more in (("noise", noise_), ("nothing", nothing), ("itself", itself)):
        for where, content in (("after", itself + more), ("before", more + itself)):
            name = f"more-{original.name}-{what}-{where}"
            if (what, where) != ("itself", "before"):
                yield Case(name=name, suffix=original.suffix, content=content)


def with_checksums(content: bytes) -> bytes:
    """An Ogg file whose pages' checksums are right: a lie that no checksum gives away."""
    table = []
    for i in range(256):
        value = i << 24
        for _ in range(8):
            value = (value << 1 ^ (OGG_POLYNOMIAL if value >> 31 else 0)) & 0xFFFFFFFF
        table.append(value)
    changed, at = bytearray(content), 0
    while content[at : at + 4] == b"OggS" and at + 27 <= len(content):
        segments = content[at + 27 : at + 27 + content[at + 26]]
        end = at + 27 + len(segments) + sum(segments)
        changed[at + 22 : at + 26] = bytes(4)
        value = 0
        for byte in changed[at:end]:
            value = (value << 8 & 0xFFFFFFFF) ^ table[value >> 24 ^ byte]
        changed[at + 22 : at + 26] = struct.pack("<I", value)
        at = end
    return bytes(changed)


def lengths(folder: Path) -> Iterator[Case]:
    """No sample, one, a few; more channels and higher rates than anybody records with."""
    for suffix, container, codec, _ in FORMATS:
        for frames in (0, 1, 2, 63):
            path = folder / f"length{suffix}"
            write(path, noise(1.0, 1)[:frames], format=container, subtype=codec)
            # Encoders pad what is short; one that was given nothing may write nothing at all.
            fate: Fate = (
                "either" if codec in ("IMA_ADPCM", "VORBIS", "OPUS", "MPEG_LAYER_III") else "good"
            )
            yield Case(
                name=f"frames-{container}-{codec}-{frames}",
                suffix=suffix,
                content=path.read_bytes(),
                fate="broken" if frames == 0 else fate,
            )
    for codec in ("PCM_16", "PCM_24", "FLOAT"):
        samples = noise(0.1, 32, 192_000)
        path = write(folder / "wide.wav", samples, 192_000, subtype=codec)
        name = f"192kHz-32-channels-{codec}"
        yield Case(name=name, suffix=".wav", content=path.read_bytes(), fate="good")
    for channels, rate_hz in ((1, 1), (1, 655_350), (8, 96_000), (255, 8_000), (1024, 8_000)):
        path = write(folder / "odd.wav", noise(0.05, channels)[:50], rate_hz)
        name = f"{rate_hz}-Hz-{channels}-channels"
        yield Case(name=name, suffix=".wav", content=path.read_bytes(), fate="good")


def floats(folder: Path) -> Iterator[Case]:
    """Numbers that are none, that are hardly any, and that are too many."""
    values: dict[str, tuple[float, Fate]] = {
        "nan": (np.nan, "broken"),
        "inf": (np.inf, "broken"),
        "minus-inf": (-np.inf, "broken"),
        "largest": (3.4e38, "broken"),
        "huge": (1e12, "broken"),
        "loud": (1e4, "good"),
        "denormal": (1e-40, "good"),
        "tiniest": (1.4e-45, "good"),
    }
    for codec in ("FLOAT", "DOUBLE"):
        for what, (value, fate) in values.items():
            for where in (0, 12_345, -1):
                samples = noise(0.5, 2).astype(np.float64)
                samples[where, 1] = value
                path = write(folder / "float.wav", samples, subtype=codec)
                name = f"{what}-{codec}-{where}"
                yield Case(name=name, suffix=".wav", content=path.read_bytes(), fate=fate)
            path = write(folder / "float.wav", np.full((9_000, 1), value), subtype=codec)
            name = f"all-{what}-{codec}"
            yield Case(name=name, suffix=".wav", content=path.read_bytes(), fate=fate)


def wav(
    data: bytes = bytes(3200),
    *,
    claimed: int | None = None,
    chunks: bytes = b"",
    rate_hz: int = 8_000,
) -> bytes:
    """A WAV by hand: 16 bits, mono, with further chunks before its samples."""
    size = len(data) if claimed is None else claimed
    form = struct.pack("<HHIIHH", 1, 1, rate_hz, 2 * rate_hz, 2, 16)
    body = (
        b"WAVEfmt \x10\0\0\0"
        + form
        + chunks
        + b"data"
        + struct.pack("<I", size & 0xFFFFFFFF)
        + data
    )
    return b"RIFF" + struct.pack("<I", (len(body) + size - len(data)) & 0xFFFFFFFF) + body


def bombs(folder: Path) -> Iterator[Case]:
    """Little that claims to be, or becomes, much."""
    day = 24 * 3600 * 8_000 * 2
    for left in (0, 2, 100, 100_000):
        for share in (1, 2, 24):
            content = wav(bytes(left), claimed=day // share)
            name = f"day-of-silence-{24 // share}-h-{left}"
            yield Case(name=name, suffix=".wav", content=content, fate="broken")
    for suffix, container in ((".flac", "FLAC"), (".ogg", "OGG"), (".opus", "OGG")):
        codec = {"subtype": "OPUS"} if suffix == ".opus" else {}
        rate_hz = 48_000 if suffix == ".opus" else 8_000
        path = write(
            folder / f"silence{suffix}",
            np.zeros((rate_hz * 90, 1)),
            rate_hz,
            format=container,
            **codec,
        )
        yield Case(
            name=f"silence-90-s{suffix}", suffix=suffix, content=path.read_bytes(), fate="good"
        )
    path = write(folder / "flac.flac", np.zeros((8_000, 1)), 8_000)
    content = bytearray(path.read_bytes())
    for power in (30, 33, 35):
        content[21] = content[21] & 0xF0 | (2**power >> 32)
        content[22:26] = (2**power & 0xFFFFFFFF).to_bytes(4, "big")
        name = f"flac-claims-2-to-{power}"
        yield Case(name=name, suffix=".flac", content=bytes(content), fate="broken")
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.wav", bytes(10 << 20))
    yield Case(name="zip-bomb", suffix=".wav", content=zipped.getvalue(), fate="broken")
    yield Case(
        name="gzip-bomb",
        suffix=".flac",
        content=gzip.compress(bytes(10 << 20), mtime=0),
        fate="broken",
    )


def id3(frames: bytes, claimed: int | None = None) -> bytes:
    """An ID3v2.3 tag."""
    size = len(frames) if claimed is None else claimed
    seven = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\0\0" + seven + frames


def frame(name: bytes, content: bytes, claimed: int | None = None, flags: int = 0) -> bytes:
    size = len(content) if claimed is None else claimed
    return name + struct.pack(">IH", size & 0xFFFFFFFF, flags) + content


def chunk(name: bytes, content: bytes, claimed: int | None = None) -> bytes:
    size = len(content) if claimed is None else claimed
    return name + struct.pack("<I", size & 0xFFFFFFFF) + content + bytes(len(content) % 2)


def laden(folder: Path) -> Iterator[Case]:
    """Good sound under tags that are made to hurt who reads them."""
    laughs = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10))
    blow_up, outside = f'<!ENTITY a "{"a" * 50_000}">', '<!ENTITY x SYSTEM "file:///etc/passwd">'
    texts = {
        "laughs": f'<!DOCTYPE b [<!ENTITY a0 "ha">{laughs}]><b><NOTE>&a9;</NOTE></b>',
        "blow-up": f"<!DOCTYPE b [{blow_up}]><b><NOTE>{'&a;' * 50_000}</NOTE></b>",
        "outside": f"<!DOCTYPE b [{outside}]><b><NOTE>&x;</NOTE></b>",
        "deep": "<a>" * 200_000,
        "deep-closed": "<a>" * 200_000 + "</a>" * 200_000,
        "attributes": "<BWFXML " + " ".join(f'a{i}="x"' for i in range(50_000)) + "/>",
        "wide": "<BWFXML>" + "<NOTE>x</NOTE>" * 200_000 + "</BWFXML>",
        "not-xml": "<<<>>>" * 1000,
        "nulls": "\0" * 4000,
        "encoding": '<?xml version="1.0" encoding="no-such"?><a><NOTE>x</NOTE></a>',
        "utf-16": '<?xml version="1.0" encoding="utf-16"?><a/>',
        "long-name": f"<BWFXML><{'n' * 1_000_000}>x</{'n' * 1_000_000}></BWFXML>",
    }
    for what, text in texts.items():
        content = wav(chunks=chunk(b"iXML", text.encode()))
        yield Case(name=f"ixml-{what}", suffix=".wav", content=content, fate="good")
    for what, body in {
        "empty": b"",
        "short": b"x" * 100,
        "random": np.random.default_rng(5).bytes(602),
        "endless": b"a" * GIANT_BYTES,
    }.items():
        yield Case(
            name=f"bext-{what}",
            suffix=".wav",
            content=wav(chunks=chunk(b"bext", body)),
            fate="good",
        )
    info = b"INFO" + chunk(b"INAM", b"title\0", claimed=0xFFFFFFF0)
    yield Case(
        name="info-lies", suffix=".wav", content=wav(chunks=chunk(b"LIST", info)), fate="good"
    )
    info = b"INFO" + chunk(b"ICMT", b"") * 100_000
    yield Case(name="info-many", suffix=".wav", content=wav(chunks=chunk(b"LIST", info)))
    for size in (0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFFE):
        content = wav(chunks=chunk(b"iXML", b"<a/>", claimed=size))
        yield Case(name=f"ixml-claims-{size:x}", suffix=".wav", content=content)
    yield Case(name="chunks-many", suffix=".wav", content=wav(chunks=chunk(b"junk", b"") * 50_000))
    yield from laden_mp3(folder)
    yield from laden_flac(folder)


def laden_mp3(folder: Path) -> Iterator[Case]:
    sound = write(folder / "laden.mp3", noise(0.5)).read_bytes()
    picture = b"\0image/png\0\3\0" + bytes(GIANT_BYTES)
    squeezed = struct.pack(">I", 1 << 30) + gzip.compress(bytes(1 << 20), mtime=0)
    tags = {
        "picture": id3(frame(b"APIC", picture)),
        "picture-twice": id3(frame(b"APIC", picture) * 2),
        "frame-lies": id3(frame(b"TIT2", b"\0title", claimed=0x7FFFFFFF)),
        "frame-endless": id3(frame(b"TIT2", b"\0title", claimed=0xFFFFFFFF)),
        "frames-many": id3(frame(b"TXXX", b"\0a\0b") * 50_000),
        "frame-empty": id3(frame(b"TIT2", b"")),
        "frame-squeezed": id3(frame(b"TIT2", squeezed, flags=0x80)),
        "half-utf-16": id3(frame(b"TIT2", b"\1\xff\xfea")),
        "text-endless": id3(frame(b"COMM", b"\0eng\0" + b"x" * GIANT_BYTES)),
        "twenty-tags": id3(frame(b"TIT2", b"\0t")) * 20,
        "zero-size": id3(b"", claimed=0),
        "padding": id3(bytes(GIANT_BYTES)),
    }  # fmt: skip
    for what, tag in tags.items():
        fate: Fate = "either" if what == "twenty-tags" else "good"
        yield Case(name=f"id3-{what}", suffix=".mp3", content=tag + sound, fate=fate)
    for claimed in (2**28 - 1, 1 << 20):
        content = id3(b"", claimed=claimed) + sound
        yield Case(name=f"id3-claims-{claimed}", suffix=".mp3", content=content)


def laden_flac(folder: Path) -> Iterator[Case]:
    sound = write(folder / "laden.flac", noise(0.5)).read_bytes()
    head, rest = sound[:42], sound[42:]
    comments = {
        "count-lies": struct.pack("<II", 0, 0xFFFFFFFF),
        "length-lies": struct.pack("<I", 0xFFFFFFF0) + b"x" * 50,
        "many": struct.pack("<II", 0, 200_000) + (struct.pack("<I", 3) + b"A=b") * 200_000,
        "no-sign": struct.pack("<II", 0, 1) + struct.pack("<I", 3) + b"abc",
        "not-text": struct.pack("<II", 0, 1) + struct.pack("<I", 9) + b"TITLE=\xff\xfe\xfd",
    }
    for what, body in comments.items():
        block = b"\4" + len(body).to_bytes(3, "big") + body
        yield Case(name=f"vorbis-comment-{what}", suffix=".flac", content=head + block + rest)
    picture = (
        struct.pack(">II", 3, 9)
        + b"image/png"
        + struct.pack(">IIIIII", 0, 9**9, 9**9, 24, 0, GIANT_BYTES)
    )
    block = b"\6" + (len(picture) + GIANT_BYTES).to_bytes(3, "big") + picture + bytes(GIANT_BYTES)
    yield Case(name="flac-picture", suffix=".flac", content=head + block + rest, fate="good")
    block = b"\6" + len(picture).to_bytes(3, "big") + picture
    yield Case(name="flac-picture-lies", suffix=".flac", content=head + block + rest)
    block = b"\6\xff\xff\xff"
    yield Case(name="flac-block-lies", suffix=".flac", content=head + block + rest)


def disguised(folder: Path) -> Iterator[Case]:
    """What is no sound, under the names of sounds."""
    random = np.random.default_rng(9)
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("a.txt", "text")
    elf = (
        Path("/bin/sh").read_bytes()[:50_000]
        if Path("/bin/sh").exists()
        else b"\x7fELF" + bytes(5000)
    )
    contents = {
        "empty": b"",
        "byte": b"\0",
        "text": b"I am a shopping list.\n" * 50,
        "zip": zipped.getvalue(),
        "elf": elf,
        "png": b"\x89PNG\r\n\x1a\n" + random.bytes(2000),
        "jpeg": b"\xff\xd8\xff\xe0\0\x10JFIF\0" + random.bytes(2000),
        "pdf": b"%PDF-1.7\n" + random.bytes(2000),
        "html": b"<!doctype html><html><body>404 not found</body></html>",
        "json": b'{"error": "not found"}',
        "gzip": gzip.compress(random.bytes(2000), mtime=0),
        "pickle": b"\x80\x04\x95\x10\0\0\0\0\0\0\0\x8c\x02os\x94\x8c\x06system\x94\x93\x94.",
        "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:"
        + b"0" * 64
        + b"\nsize 1\n",
        "script": b"#!/bin/sh\ntouch /tmp/owned\n",
        "playlist": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        "concat": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "midi": b"MThd\0\0\0\6\0\1\0\1\0`MTrk\0\0\0\4\0\xff/\0",
        "noise": random.bytes(20_000),
        "zeros": bytes(20_000),
        "ones": b"\xff" * 20_000,
    }
    suffixes = (".wav", ".mp3", ".flac", ".ogg", ".m4a", ".aiff", ".aac", ".webm")
    for what, content in contents.items():
        for number, suffix in enumerate(suffixes):
            # A byte more makes each a case of its own, and changes nothing of what it is.
            more = bytes([65 + number]) if content and number else b""
            # Noise may hold what looks like a frame of an MP3 or of AAC.
            vague = what in ("noise", "ones", "jpeg", "png", "pdf", "elf", "gzip")
            yield Case(
                name=f"no-sound-{what}-{suffix[1:]}",
                suffix=suffix,
                content=content + more,
                fate="either" if vague else "broken",
            )


def put(cases: Iterable[Case], folder: Path) -> dict[str, Fate]:
    """Write cases into folders of a hundred; gives the fate of each by its path."""
    fates: dict[str, Fate] = {}
    for number, case in enumerate(cases):
        below = folder / f"{number // 100:03d}"
        below.mkdir(parents=True, exist_ok=True)
        path = below / f"{case.name}{case.suffix}"
        path.write_bytes(case.content)
        assert str(path) not in fates, f"two cases are called {case.name}"
        fates[str(path)] = case.fate
    return fates


def put_places(folder: Path, sound: bytes) -> dict[str, Fate]:
    """What a folder may hold beside files, and names that programs stumble over."""
    folder.mkdir(parents=True)
    fates: dict[str, Fate] = {}

    def note(name: str, fate: Fate) -> Path:
        path = folder / name
        fates[str(path)] = fate
        return path

    os.mkfifo(note("pipe.wav", "broken"))
    with socket.socket(socket.AF_UNIX) as listener, suppress(OSError):  # Long paths are refused.
        here = Path.cwd()
        os.chdir(folder)
        listener.bind("socket.wav")
        note("socket.wav", "broken")
        os.chdir(here)
    for device in ("zero", "null", "random", "full", "stdin", "tty"):
        note(f"device-{device}.wav", "broken").symlink_to(f"/dev/{device}")
    note("dangling.wav", "broken").symlink_to("nowhere.wav")
    note("itself.wav", "broken").symlink_to("itself.wav")
    note("one.wav", "broken").symlink_to("other.wav")
    note("other.wav", "broken").symlink_to("one.wav")
    note("secret.wav", "broken").symlink_to("/etc/passwd")
    (folder / "loop").symlink_to(folder)
    (folder / "folder.wav").mkdir()
    note("folder.wav/inside.wav", "good").write_bytes(sound + b"1")
    for number, name in enumerate(AWKWARD_NAMES):
        with suppress(OSError):
            note(f"{name}.wav", "good").write_bytes(sound + bytes(number))
    unreadable = note(os.fsdecode(b"not-\xff-text.wav"), "broken")
    unreadable.write_bytes(sound)
    return fates


AWKWARD_NAMES = (
    "a\nnew line", "a\ttab", "a\rreturn", " space ", "-rf", "--to", "*", "?", "a'quote", 'a"quote',
    "$(touch x)", "`x`", ";x", "|x", "a%sb%n", "\x1b[31mred", "\x07bell", "ünïcödé", "u\u0308",
    "日本語", "🔊", "\u202eright to left", "\u200bnothing", "a.wav.mp3", "x...", "con", "nul",
    "x" * 251, "é" * 125, "http:", "file:", "pipe:0", "concat:a|b", "data:x", "%2e%2e%2f",
    "x..%c0%af", "a\\b",
)  # fmt: skip


def put_deep(folder: Path, sound: bytes) -> list[str]:
    """Files below names that together are longer than a path may be; gives what is to be named."""
    folder.mkdir(parents=True)
    step, named = "d" * 200, []
    handle = os.open(folder, os.O_RDONLY)
    path = str(folder)
    try:
        for level in range(25):
            file = os.open("a.wav", os.O_WRONLY | os.O_CREAT, dir_fd=handle)
            os.write(file, sound + bytes([level]))
            os.close(file)
            named.append(f"{path}/a.wav")
            os.mkdir(step, dir_fd=handle)
            below = os.open(step, os.O_RDONLY, dir_fd=handle)
            os.close(handle)
            handle, path = below, f"{path}/{step}"
    finally:
        os.close(handle)
    return named
