"""Get a dataset from where it is published, as far as it is; say exactly how to get the rest.

Downloads go on where they stopped, and what is done is not done again: `.fetched.json` in the
folder tells which files were fetched, with which hash, and which archives were unpacked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from earshot.datasets import audiocaps, wavcaps
from earshot.datasets.archives import unpack
from earshot.files import atomic_write, download, has_md5, locked, one_line, sha256_of
from earshot.types import EarshotError

ZENODO = "https://zenodo.org/records"
AUDIOCAPS = "https://raw.githubusercontent.com/cdjkim/audiocaps/master/dataset"
WAVCAPS = "https://huggingface.co/datasets/cvssp/WavCaps/resolve/main"
STATE, LOCK = ".fetched.json", ".fetch.lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A published file; an archive is unpacked into `folder`, then deleted.

    Without a published MD5, the SHA-256 of the first download is recorded and holds from then on.
    """

    url: str
    name: str
    folder: str = ""
    md5: str = ""

    @property
    def is_archive(self) -> bool:
        """Whether it is to be unpacked."""
        return self.name.endswith((".7z", ".zip"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What can be fetched of a dataset, and what the user must do for the rest."""

    remotes: tuple[Remote, ...]
    instructions: str = ""


def _zenodo(record: int, folder: str, **checksums: str) -> tuple[Remote, ...]:
    """Files of a Zenodo record: `name__suffix=md5`."""
    named = ((name.replace("__", "."), md5) for name, md5 in checksums.items())
    return tuple(
        Remote(url=f"{ZENODO}/{record}/files/{name}?download=1", name=name, folder=folder, md5=md5)
        for name, md5 in named
    )


# The MD5 sums are those that Zenodo publishes. Version 2.1 left the evaluation files as they were.
CLOTHO = _zenodo(
    4783391,
    "",
    clotho_captions_development__csv="d4090b39ce9f2491908eebf4d5b09bae",
    clotho_captions_validation__csv="5879e023032b22a2c930aaa0528bead4",
    clotho_captions_evaluation__csv="1b16b9e57cf7bdb7f13a13802aeb57e2",
    clotho_metadata_development__csv="170d20935ecfdf161ce1bb154118cda5",
    clotho_metadata_validation__csv="2e010427c56b1ce6008b0f03f41048ce",
    clotho_metadata_evaluation__csv="13946f054d4e1bf48079813aac61bf77",
    clotho_audio_evaluation__7z="4569624ccadf96223f19cb59fe4f849f",
    clotho_audio_validation__7z="7dba730be08bada48bd15dc4e668df59",
    clotho_audio_development__7z="c8b05bc7acdb13895bb3c6a29608667e",
)
HIDDEN_EVALUATION = _zenodo(
    6590983,
    "",
    retrieval_captions__csv="f9e810118be00c64ea8cd7557816d4fe",
    retrieval_audio_metadata__csv="1301db07acbf1e4fabc467eb54e0d353",
    retrieval_audio__7z="24102395fd757c462421a483fba5c407",
)
AUDIOCAPS_FILES = (
    *(
        Remote(url=f"{AUDIOCAPS}/{split}.csv", name=f"{split}.csv")
        for split in audiocaps.CARD.sizes
    ),
    Remote(
        url="https://cloud.cp.jku.at/index.php/s/9MiMcrNjJ3Z9FfH/download/AUDIOCAPS.zip",
        name="AUDIOCAPS.zip",
        folder="audio",
    ),
)
AUDIOCAPS_REST = """\
AudioCaps' audio is for research use. For clips that the copy fetched here lacks: cut the seconds
start_time to start_time + 10 from the YouTube video, save them as {to}/audio/YOUTUBE_ID.wav
(.flac, .ogg and .mp3 do too). `earshot data check audiocaps --data {to}` lists what is missing."""
BLACKLIST = f"blacklist/{wavcaps.BLACKLIST}"
WAVCAPS_FILES = (
    *(
        Remote(
            url=f"{WAVCAPS}/json_files/{table}",
            name=Path(table).name,
            folder=f"json_files/{Path(table).parent}",
        )
        for table in (*(f"{s}/{name}" for s, name in wavcaps.TABLES.items()), BLACKLIST)
    ),
    Remote(
        url=f"{WAVCAPS}/Zip_files/SoundBible/SoundBible.zip",
        name="SoundBible.zip",
        folder="SoundBible",
    ),
)
WAVCAPS_REST = """\
WavCaps' audio is for academic research only. SoundBible's was fetched; the other three sources are
split archives, which zip must join first (157 GB in all, twice that while joining):
  hf download cvssp/WavCaps --repo-type dataset --include "Zip_files/*" --local-dir {to}
and for each NAME of FreeSound, BBC_Sound_Effects, AudioSet_SL:
  zip -s 0 {to}/Zip_files/NAME/NAME.zip --out {to}/NAME.zip
  unzip -j {to}/NAME.zip -d {to}/NAME_flac
MP3 files do too: put them into {to}/NAME_mp3, named by the ids of the clips."""
SOURCES = {
    "clotho": Source(remotes=CLOTHO),
    "audiocaps": Source(remotes=AUDIOCAPS_FILES, instructions=AUDIOCAPS_REST),
    "wavcaps": Source(remotes=WAVCAPS_FILES, instructions=WAVCAPS_REST),
    "queries": Source(remotes=HIDDEN_EVALUATION),
}


def source_of(name: str) -> Source:
    """What can be fetched under a name.

    Raises:
        EarshotError: nothing.
    """
    if name not in SOURCES:
        raise EarshotError(f"nothing to fetch for {name!r}; known are {', '.join(SOURCES)}")
    return SOURCES[name]


def fetch(
    remotes: Sequence[Remote],
    folder: Path,
    report: Callable[[int], None] | None = None,
    get: Callable[[str, Path, Callable[[int], None] | None], None] = download,
) -> list[str]:
    """Fetch and unpack what is not here yet; returns the names of what was fetched.

    Who fetches into a folder while another process does waits for that.

    Args:
        remotes: what to fetch, in this order.
        folder: where to.
        report: told how many bytes of a file have come.
        get: what downloads an address to a file, going on where it stopped.

    Raises:
        EarshotError: an address that does not answer, or a file that is not as published.
    """
    if all(_is_here(remote, folder) for remote in remotes):
        return []
    with locked(folder / LOCK):
        return _fetched(remotes, folder, report, get)


def _fetched(
    remotes: Sequence[Remote],
    folder: Path,
    report: Callable[[int], None] | None,
    get: Callable[[str, Path, Callable[[int], None] | None], None],
) -> list[str]:
    fetched = []
    for remote in remotes:
        if _is_here(remote, folder):
            continue
        path = folder / remote.folder / remote.name
        if not path.exists():
            _download(remote, path, report, get)
        sha256 = _verified(remote, path, folder)
        if remote.is_archive:
            unpack(path, folder / remote.folder)
        _remember(folder, remote, sha256)
        if remote.is_archive:
            path.unlink()
        fetched.append(remote.name)
    return fetched


def _is_here(remote: Remote, folder: Path) -> bool:
    if remote.name not in _state(folder):
        return False
    return remote.is_archive or (folder / remote.folder / remote.name).exists()


def _download(
    remote: Remote,
    path: Path,
    report: Callable[[int], None] | None,
    get: Callable[[str, Path, Callable[[int], None] | None], None],
) -> None:
    try:
        get(remote.url, path, report)
    except (OSError, HTTPException) as error:
        what = f"{remote.name} could not be fetched from {remote.url} ({one_line(error)})"
        raise EarshotError(f"{what}; run it again to go on, or put the file at {path}") from error


def _verified(remote: Remote, path: Path, folder: Path) -> str:
    """The file's SHA-256, if it is the published file or the one that was there at first.

    Any other is moved aside, where nothing reads it.

    Raises:
        EarshotError: it is another file.
    """
    sha256 = sha256_of(path)
    known = _state(folder).get(remote.name, "")
    if remote.md5 and not has_md5(path, remote.md5):
        wrong, right = "another MD5", remote.md5
    elif not remote.md5 and known not in ("", sha256):
        wrong, right = f"SHA-256 {sha256}", known
    else:
        return sha256
    aside = path.with_name(f"{path.name}.wrong")
    path.replace(aside)
    raise EarshotError(f"{aside} has {wrong}, expected {right}; delete it and fetch it again")


def _state(folder: Path) -> dict[str, str]:
    path = folder / STATE
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text())
        return {str(name): str(sha256) for name, sha256 in content.items()}
    except (ValueError, AttributeError) as error:
        raise EarshotError(f"{path} is damaged; delete it") from error


def _remember(folder: Path, remote: Remote, sha256: str) -> None:
    state = {**_state(folder), remote.name: sha256}
    with atomic_write(folder / STATE) as file:
        file.write(json.dumps(state, indent=2).encode())


def instructions(name: str, folder: Path) -> str:
    """What the user must do for the rest; empty if that is nothing."""
    return source_of(name).instructions.replace("{to}", str(folder))
