"""Encoders as ONNX Runtime runs them: our own export, exact and with products in eight bits.

What `earshot export --onnx` does for a model's audio side, here for an encoder's embeddings.

Axis legend: B clips, T samples, S segments, D dimension.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from published import Way
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional

from earshot.model.export import quantise, write_graph
from earshot.model.onnx_graphs import exportable

EXACT, INT8 = "onnx", "int8"


class Embedding(nn.Module):
    """What an encoder makes of segments, nothing else of it."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = exportable(encoder)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """(B, T) with (B,) valid samples to (B, D)."""
        embedding: Tensor = self.encoder(waveforms, lengths).embedding
        return embedding


def write_exports(encoder: Any, clips: Tensor, folder: Path) -> None:
    """Write an encoder's graphs, of three clips, in a process that ends: it leaves memory behind.

    Eight bits are left out where nothing in the graph gains by them.
    """
    whole = encoder.segment_s is None
    samples = clips.shape[1] if whole else round(encoder.segment_s * encoder.sample_rate_hz)
    segments = cut(clips, samples)[:3]  # A batch of one would become a constant.
    inputs = {"waveforms": segments, "lengths": torch.tensor([samples, samples // 2, samples // 3])}
    batch = Dim("batch")
    exact, int8 = (folder / f"{name}.onnx" for name in (EXACT, INT8))
    write_graph(Embedding(encoder), inputs, dict.fromkeys(inputs, {0: batch}), exact)
    shutil.copy(exact, int8)
    if not quantise(int8):
        int8.unlink()


def cut(clips: Tensor, samples: int) -> Tensor:
    """Clips (B, T) as segments (B·S, T'), the last one of each filled with silence."""
    return functional.pad(clips, (0, -clips.shape[1] % samples)).reshape(-1, samples)


def exported(_: Any, path: Path) -> Way:
    """A graph, run with as many threads as torch is told to take."""
    import onnxruntime

    sessions: dict[int, Any] = {}

    def session(threads: int) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])

    def way(clips: Tensor) -> Tensor:
        threads = torch.get_num_threads()
        if threads not in sessions:
            sessions[threads] = session(threads)
        segments = cut(clips, sessions[threads].get_inputs()[0].shape[1])
        lengths = torch.full((len(segments),), segments.shape[1])
        inputs = {"waveforms": segments.numpy(), "lengths": lengths.numpy()}
        found = torch.from_numpy(sessions[threads].run(None, inputs)[0])
        return found.view(len(clips), -1, found.shape[1])

    sessions[1] = session(1)  # Its weights are loaded before memory is counted.
    return way
