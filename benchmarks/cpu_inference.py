"""Ways to compute an encoder on a CPU, side by side: CPU time with one thread, what is lost.

The ways: as built ("plain"), in channels-last memory, with norms folded, as earshot's models do it
("prepared"), bfloat16, torch.compile, OpenVINO behind our front-end, our export in ONNX Runtime,
exact and in eight bits: matrix products alone, scaled by batch ("int8"), or convolutions too,
scaled by what recordings were seen to hold ("int8 static"). Each way has a process of its own, all
take turns, so that ratios of CPU time hold on a shared machine. A clip is 10 s of noise; "differs"
is the largest difference to the plain embedding, as a share of its largest figure.

    EARSHOT_ASSETS=FOLDER python benchmarks/cpu_inference.py speed FAMILY      (a few minutes)
    EARSHOT_ASSETS=FOLDER python benchmarks/cpu_inference.py quality DATA      (esc10 is in DATA)
    EARSHOT_ASSETS=FOLDER python benchmarks/cpu_inference.py threads FOLDER    (of recordings)
    python benchmarks/cpu_inference.py table

`quality` is the mAP of esc10's text queries by sound alone with the model `tags` (a clip's best
segment), when parts of it are computed in eight bits. `threads` hears files with one and with two
workers. Each writes its part of the JSON beside this file. OpenVINO is measured where it is
installed (2026.4.1 in the kept figures); nothing else needs it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import encoders
import exported
import numpy as np
import torch
from torch import Tensor, nn

from earshot.cores import usable_cores
from earshot.files import find
from earshot.model.inference import prepared_copy

RESULT = Path(__file__).with_suffix(".json")
CLIP_S = 10
FAMILIES = {
    "mn04": "mn04",
    "cnn14": "cnn14",
    "passt": "passt_s_p16_s16",
    "beats": "beats-iter3-plus-as2m-finetuned",
}
BATCHES = {"mn04": (1, 8), "cnn14": (1, 8), "passt": (1, 4), "beats": (1, 4)}
LEAST_TURNS, MOST_TURNS = 2, 9
CALIBRATION_CLIPS = 6
STATIC = "int8-static"
Way = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One batch through one way."""

    cpu_s: float
    embeddings: np.ndarray


def build(family: str) -> Any:
    """An encoder with its public weights where they are here, else with random ones."""
    from earshot.checkpoints import TAGGERS
    from earshot.model.networks import encoder_of
    from earshot.weights import read_weights

    preset = FAMILIES[family]
    asset = TAGGERS[preset].asset if preset in TAGGERS else None
    if asset and (path := find(asset)):
        return encoder_of(preset, read_weights(path)).eval()
    return encoders.build(preset)


def noise(encoder: Any, clips: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(clips, CLIP_S * encoder.sample_rate_hz, generator=generator) * 0.1


def embed(encoder: Any, clips: Tensor) -> Tensor:
    """Embeddings (B, D) of clips (B, T)."""
    embedding: Tensor = encoder(clips, torch.full((len(clips),), clips.shape[1])).embedding
    return embedding


def in_torch(encoder: Any) -> dict[str, Callable[[], Way]]:
    """The ways of PyTorch, each made in the process that runs it."""

    def channels_last() -> Way:
        moved = encoder.to(memory_format=torch.channels_last)
        return lambda clips: embed(moved, clips)

    def folded() -> Way:
        contiguous = encoder.fold_norms().to(memory_format=torch.contiguous_format)
        return lambda clips: embed(contiguous, clips)

    def ready() -> Way:
        network = prepared_copy(encoder, "cpu")
        return lambda clips: embed(network, clips)

    def half() -> Way:
        def way(clips: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return embed(encoder, clips).float()

        return way

    def compiled() -> Way:
        from torch._inductor import config

        config.freezing, config.compile_threads = True, 1
        network = torch.compile(encoder, dynamic=False)
        return lambda clips: embed(network, clips)

    ways = {"plain": lambda: lambda clips: embed(encoder, clips), "prepared": ready}
    if hasattr(encoder, "fold_norms"):
        ways |= {"channels-last": channels_last, "folded": folded}
    return ways | {"bfloat16": half, "compiled": compiled}


class Behind(nn.Module):
    """A network of convolutions without its front-end."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder
        self.hear = encoder.classify if hasattr(encoder, "classify") else encoder.encode

    def forward(self, log_mel: Tensor, frames: Tensor) -> Tensor:
        """Features with valid frames (B,), all of them, to (B, D)."""
        embedding: Tensor = self.hear(log_mel, frames).embedding
        return embedding


def in_openvino(encoder: Any) -> Way:
    """OpenVINO behind our front-end: it reads no STFT of any number of clips."""
    openvino = import_module("openvino")  # Not among the dependencies.
    front_end = getattr(encoder, "log_mel", encoder.front_end)
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled: dict[int, Any] = {}

    def way(clips: Tensor) -> Tensor:
        log_mel, frames = front_end(clips, torch.full((len(clips),), clips.shape[1]))
        if len(clips) not in compiled:
            with torch.inference_mode(False), torch.no_grad():
                given = (torch.zeros(log_mel.shape), frames.clone())
                graph = openvino.convert_model(Behind(encoder), example_input=given)
            graph.reshape([list(log_mel.shape), [len(clips)]])
            compiled[len(clips)] = openvino.Core().compile_model(graph, "CPU", settings)
        found = compiled[len(clips)]([log_mel.numpy(), frames.numpy()])[0]
        return torch.from_numpy(found.copy())

    return way


def ways_of(encoder: Any, exports: Path) -> dict[str, Callable[[], Way]]:
    """Every way by name."""
    ways = in_torch(encoder)
    for path in sorted(exports.glob("*.onnx"), reverse=True):

        def onnx(path: Path = path) -> Way:
            way = exported.exported(None, path)
            return lambda clips: way(clips)[:, 0]

        ways[path.stem.replace("-", " ")] = onnx
    if find_spec("openvino") and hasattr(encoder, "fold_norms"):
        ways["openvino"] = lambda: in_openvino(encoder)
    return ways


def quantise_static(exact: Path, int8: Path, batches: Sequence[dict[str, np.ndarray]]) -> None:
    """Do convolutions and matrix products behind the front-end in eight bits, scaled once."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    from earshot.model.export import exporting, scope, without_shapes

    class Clips(CalibrationDataReader):  # type: ignore[misc]  # the library has no types
        def __init__(self) -> None:
            self.left = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.left, None)

    nodes = [
        node.name
        for node in onnx.load(exact).graph.node
        if node.op_type in ("Conv", "MatMul", "Gemm") and "front_end" not in scope(node)
    ]
    with exporting():
        quantize_static(
            without_shapes(exact),
            int8,
            Clips(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,  # Without VNNI two products must fit into 16 bits.
            nodes_to_quantize=nodes,
        )


def write_exports(encoder: Any, folder: Path) -> None:
    """All graphs of an encoder, in a process that ends: it leaves memory behind."""
    clips = noise(encoder, CALIBRATION_CLIPS)
    exported.write_exports(encoder, clips, folder)
    length = np.array([clips.shape[1]])
    batches = [{"waveforms": clip[None].numpy(), "lengths": length} for clip in clips]
    quantise_static(folder / f"{exported.EXACT}.onnx", folder / f"{STATIC}.onnx", batches)


def serve(make: Callable[[], Way], encoder: Any, pipe: Connection) -> None:
    """Answer a number of clips with a `Turn`, in a process that knows one way only."""
    warnings.simplefilter("ignore")
    way, known = make(), set()
    while True:
        count = pipe.recv()
        clips = noise(encoder, count)
        with torch.inference_mode():
            first_s = cpu_s()
            if count not in known:
                way(clips)
                known.add(count)
            first_s = cpu_s() - first_s
            start_s = cpu_s()
            embeddings = way(clips)
            spent_s = cpu_s() - start_s
        pipe.send((first_s, Turn(cpu_s=spent_s, embeddings=embeddings.float().numpy())))


def cpu_s() -> float:
    """CPU seconds of this process and of those that it started and that ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


@contextmanager
def workers(encoder: Any) -> Iterator[dict[str, Connection]]:
    """A process for each way."""
    fork = multiprocessing.get_context("fork")
    pipes: dict[str, Connection] = {}
    processes = []
    with TemporaryDirectory() as folder:
        exporter = fork.Process(target=write_exports, args=(encoder, Path(folder)))
        exporter.start()
        exporter.join()
        assert exporter.exitcode == 0
        for name, make in ways_of(encoder, Path(folder)).items():
            pipes[name], far_end = fork.Pipe()
            process = fork.Process(target=serve, args=(make, encoder, far_end))
            process.start()
            far_end.close()
            processes.append(process)
        try:
            yield pipes
        finally:
            for process in processes:
                process.kill()
                process.join()


def asked(pipe: Connection, clips: int) -> tuple[float, Turn] | None:
    """One turn with what the first one took; None from a process that failed."""
    try:
        pipe.send(clips)
        return pipe.recv()  # type: ignore[no-any-return]
    except (EOFError, OSError):
        return None


def speed(family: str, seconds: float) -> dict[str, Any]:
    """All ways in turn, with each size of batch for so long."""
    encoder = build(family)
    result: dict[str, Any] = {"preset": FAMILIES[family]}
    with workers(encoder) as pipes:
        for clips in BATCHES[family]:
            first: dict[str, float] = {}
            turns: dict[str, list[Turn]] = {}
            start_s = time.perf_counter()
            for turn in range(MOST_TURNS):
                for name, pipe in list(pipes.items()):
                    if name == "compiled" and clips == BATCHES[family][0]:
                        continue  # A minute of compiling for each size is enough once.
                    answer = asked(pipe, clips)
                    if answer is None:
                        print(f"{name} failed", flush=True)
                        del pipes[name]
                        continue
                    first.setdefault(name, answer[0])
                    turns.setdefault(name, []).append(answer[1])
                if turn + 1 >= LEAST_TURNS and time.perf_counter() - start_s > seconds:
                    break
            result[f"batch {clips}"] = summary(turns, first, clips)
    return result


def summary(
    turns: dict[str, list[Turn]], first: dict[str, float], clips: int
) -> dict[str, dict[str, float]]:
    """Of each way: milliseconds of CPU for a clip, how many times faster than plain, the loss."""
    plain = turns["plain"]
    expected = plain[0].embeddings
    figures = {}
    for name, taken in turns.items():
        ratios = [a.cpu_s / b.cpu_s for a, b in zip(plain, taken, strict=False)]
        got = taken[0].embeddings
        cosines = (got * expected).sum(1) / np.linalg.norm(got, axis=1)
        figures[name] = {
            "cpu_ms": round(1000 * min(turn.cpu_s for turn in taken) / clips, 2),
            "times_faster": round(median(ratios), 2),
            "first_s": round(first[name] - min(turn.cpu_s for turn in taken), 2),
            "differs": float(np.abs(got - expected).max() / np.abs(expected).max()),
            "cosine_loss": float((1 - cosines / np.linalg.norm(expected, axis=1)).max()),
            "turns": len(taken),
        }
        print(family_row(name, clips, figures[name]), flush=True)
    return figures


def family_row(name: str, clips: int, figures: dict[str, float]) -> str:
    return (
        f"{name:16} batch {clips}  {figures['cpu_ms']:8.1f} ms  {figures['times_faster']:5.2f} x  "
        f"first {figures['first_s']:6.1f} s  differs {figures['differs']:.0e}"
    )


def quality(data: Path) -> dict[str, Any]:
    """What eight bits cost: mAP of esc10's text queries by sound alone."""
    from retrieval_queries import load_esc10

    from earshot.metrics import average_precision
    from earshot.model import load

    whole = load_esc10(data / "esc10")
    texts = [query.text for query in whole.queries]
    relevant = whole.relevance()
    model = load("tags", "cpu")
    paths = [data / "esc10" / clip.file_name for clip in whole.clips]
    result: dict[str, Any] = {"queries": len(texts), "clips": len(paths)}
    with TemporaryDirectory() as folder:
        models = exports_of_tags(Path(folder), paths[::40])
        heard: dict[str, list[np.ndarray]] = {}
        for name in ("exact", "int8", STATIC):
            start_s = cpu_s()
            heard[name] = hear(models[name] if name != "exact" else model, paths)
            print(name, round(cpu_s() - start_s, 1), "s of CPU", flush=True)
        asked_in = {"exact": model.embed_text(texts), "int8": models["int8"].embed_text(texts)}
        for audio_side, clips in heard.items():
            for text_side, queries in asked_in.items():
                scores = np.stack([(queries @ clip.T).max(1) for clip in clips], axis=1)
                precision = float(average_precision(scores, relevant).mean())
                result[f"audio {audio_side}, text {text_side}"] = round(precision, 4)
    print(json.dumps(result, indent=1))
    return result


def hear(model: Any, paths: Sequence[Path]) -> list[np.ndarray]:
    """The vectors (S, D) of each file."""
    from earshot.embed import embed_files

    names = [str(path) for path in paths]
    files = {file.record.state.path: file.vectors for file in embed_files(names, model)}
    return [files[name] for name in names]


def exports_of_tags(folder: Path, seen: Sequence[Path]) -> dict[str, Any]:
    """`tags` as exported, in eight bits as `export --int8` does it, and with its convolutions."""
    from earshot import audio
    from earshot.model.onnx_model import AUDIO, OnnxModel

    for name, options in (("exact", []), ("int8", ["--int8"])):
        command = [sys.executable, "-m", "earshot", "export", "tags", "--onnx", *options]
        subprocess.run([*command, "--to", str(folder / name)], check=True, capture_output=True)
    shutil.copytree(folder / "exact", folder / STATIC)
    model = OnnxModel(folder / STATIC)
    clips = [audio.read(path, sample_rate_hz=model.sample_rate_hz)[None] for path in seen]
    batches = [{"waveforms": clip, "lengths": np.array([clip.shape[1]])} for clip in clips]
    (folder / STATIC / AUDIO).unlink()
    quantise_static(folder / "exact" / AUDIO, folder / STATIC / AUDIO, batches)
    return {name: OnnxModel(folder / name) for name in ("exact", "int8", STATIC)}


def threads(folder: Path, rounds: int) -> dict[str, Any]:
    """Files heard with one worker and with two, small batches and large: ratios of wall time."""
    result: dict[str, Any] = {"folder": folder.name, "cores": usable_cores()}
    for model in ("tags", "dual"):
        for batch in (1, 8):
            walls: dict[int, list[float]] = {1: [], 2: []}
            spent: dict[int, list[float]] = {1: [], 2: []}
            for _ in range(rounds):
                for count in walls:
                    command = [sys.executable, __file__, "hear", str(folder), model]
                    command += [str(count), str(batch)]
                    done = subprocess.run(command, check=True, capture_output=True, text=True)
                    wall_s, used_s = json.loads(done.stdout.splitlines()[-1])
                    walls[count].append(wall_s)
                    spent[count].append(used_s)
            ratios = [one / two for one, two in zip(walls[1], walls[2], strict=True)]
            figures = {
                "one_s": round(min(walls[1]), 2),
                "two_s": round(min(walls[2]), 2),
                "times_faster": round(median(ratios), 2),
                "cpu_ratio": round(median(spent[2]) / median(spent[1]), 2),
            }
            result[f"{model}, batches of {batch}"] = figures
            print(model, batch, figures, flush=True)
    return result


def hear_once(folder: Path, name: str, count: int, batch: int) -> None:
    """Hear a folder in this process; prints the seconds, wall and CPU."""
    from earshot.embed import embed_files
    from earshot.folders import collect
    from earshot.model import load

    with TemporaryDirectory() as place:
        model = load("tags", "cpu") if name == "tags" else dual_model(Path(place))
        paths = collect([folder])
        if name == "dual":
            paths = paths[::8]
        model.embed_audio([np.zeros(model.sample_rate_hz, np.float32)])
        start_s, used_s = time.perf_counter(), cpu_s()
        files = list(embed_files(paths, model, workers=count, batch_segments=batch))
        assert not any(file.record.broken for file in files)
        print(json.dumps([time.perf_counter() - start_s, cpu_s() - used_s]))


def dual_model(folder: Path) -> Any:
    """A dual encoder that listens by CNN14, with random weights."""
    from earshot.encoders.text import TextConfig
    from earshot.encoders.tiny_text import tiny_text_folder
    from earshot.model import load
    from earshot.model.dual import AudioSide, DualEncoder, DualEncoderConfig, TextSide
    from earshot.model.folder import save_dual

    text = tiny_text_folder(folder / "text", ("a dog barks",))
    tower = TextConfig(name="tiny", pooling="cls")
    config = DualEncoderConfig(audio=AudioSide(encoder="cnn14"), text=TextSide(tower=tower))
    save_dual(DualEncoder(config, text), folder / "model", name="dual")
    return load(str(folder / "model"), "cpu")


def keep(part: str, figures: dict[str, Any]) -> None:
    """Write one part of the JSON."""
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    flags = Path("/proc/cpuinfo").read_text().split()
    known = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8")
    result["machine"] = {
        "cpu": platform.machine(),
        "has": [flag for flag in known if flag in flags],
        "cores": usable_cores(),
    }
    result["torch"] = torch.__version__
    result[part] = figures
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


def print_table() -> None:
    """The speeds as the rows of docs/inference.md."""
    result = json.loads(RESULT.read_text())
    columns = [(f, f"batch {n}") for f in FAMILIES if f in result for n in BATCHES[f]]
    names = dict.fromkeys(name for f, batch in columns for name in result[f][batch])
    print("| way |" + "".join(f" {family}, {batch} |" for family, batch in columns))
    print("|---|" + "---|" * len(columns))
    for name in names:
        cells = [result[family][batch].get(name) for family, batch in columns]
        told = [f" {cell['times_faster']:.2f} |" if cell else " – |" for cell in cells]
        print(f"| {name} |" + "".join(told))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["speed", "quality", "threads", "table", "hear"])
    parser.add_argument("of", nargs="*")
    parser.add_argument("--seconds", type=float, default=30.0, help="for each size of batch")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if "OMP_NUM_THREADS" not in os.environ:
        one = os.environ | {"OMP_NUM_THREADS": "1"}
        os.execve(sys.executable, [sys.executable, *sys.argv], one)
    torch.set_num_threads(1)
    if arguments.what == "speed":
        keep(arguments.of[0], speed(arguments.of[0], arguments.seconds))
    elif arguments.what == "quality":
        keep("quality", quality(Path(arguments.of[0])))
    elif arguments.what == "threads":
        keep("threads", threads(Path(arguments.of[0]), arguments.rounds))
    elif arguments.what == "hear":
        folder, name, count, batch = arguments.of
        hear_once(Path(folder), name, int(count), int(batch))
    else:
        print_table()


if __name__ == "__main__":
    main()
