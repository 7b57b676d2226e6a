"""What every audio encoder owes its callers, asked of each family's tiny member."""

from dataclasses import replace

import pytest
import torch
import torch._dynamo.testing
from torch import nn

from earshot.encoders.catalogue import FAMILIES, audio_encoder, known_audio_encoders
from earshot.encoders.segments import encode_segments, segment_counts
from earshot.model.tensors import audio_hash
from earshot.types import EarshotError, Encoded

SECONDS = (3.0, 0.4, 1.7)


def build(family: str, **changes: object) -> nn.Module:
    torch.manual_seed(3)
    config = FAMILIES[family].tiny
    encoder = FAMILIES[family].network(replace(config, **changes) if changes else config)
    for layer in encoder.modules():  # Untrained statistics would hide what they are used for.
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    return encoder.eval()


def noises(encoder: nn.Module, seconds: tuple[float, ...] = SECONDS) -> tuple[torch.Tensor, ...]:
    """Clips of different lengths in one padded batch."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor([round(s * encoder.sample_rate_hz) for s in seconds])
    waveforms = torch.randn(len(seconds), int(lengths.max()), generator=generator) * 0.1
    waveforms *= torch.arange(waveforms.shape[1]) < lengths[:, None]
    return waveforms, lengths


def assert_close(a: torch.Tensor, b: torch.Tensor, within: float = 2e-5) -> None:
    """Equal to `within` of the larger values' size."""
    assert a.shape == b.shape
    assert (a - b).abs().max() <= within * b.abs().max().clamp_min(1e-6)


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@torch.no_grad()
def test_shapes(family: str) -> None:
    encoder = build(family)
    heard = encoder(*noises(encoder))
    assert heard.embedding.shape == (3, encoder.dimension)
    assert heard.embedding.dtype == torch.float32
    assert heard.embedding.isfinite().all()
    assert heard.logits is None or heard.logits.shape[0] == 3
    if heard.sequence is not None:
        assert heard.valid is not None
        assert heard.sequence.shape[:2] == heard.valid.shape
        assert heard.valid.dtype == torch.bool
        steps = heard.valid.sum(1)
        assert steps[0] >= steps[2] >= steps[1] >= 1


@torch.no_grad()
def test_a_clip_does_not_depend_on_its_batch(family: str) -> None:
    encoder = build(family)
    waveforms, lengths = noises(encoder)
    together = encoder(waveforms, lengths)
    for i, length in enumerate(lengths):
        alone = encoder(waveforms[i : i + 1, :length], length[None])
        assert_close(alone.embedding[0], together.embedding[i])
        if alone.logits is not None and together.logits is not None:
            assert_close(alone.logits[0], together.logits[i])
        if alone.sequence is not None and together.sequence is not None:
            steps = int(alone.valid[0].sum())
            assert steps == int(together.valid[i].sum())
            assert_close(alone.sequence[0, :steps], together.sequence[i, :steps])


@torch.no_grad()
def test_what_follows_a_clip_does_not_matter(family: str) -> None:
    encoder = build(family)
    waveforms, lengths = noises(encoder)
    beyond = torch.arange(waveforms.shape[1]) >= lengths[:, None]
    dirty = waveforms.masked_fill(beyond, 0.7)
    assert_close(encoder(dirty, lengths).embedding, encoder(waveforms, lengths).embedding)


@torch.no_grad()
@pytest.mark.parametrize("samples", [1, 2, 400])
def test_very_short_clips(family: str, samples: int) -> None:
    encoder = build(family)
    heard = encoder(torch.full((2, samples), 0.1), torch.tensor([samples, samples]))
    assert heard.embedding.isfinite().all()


@torch.no_grad()
def test_a_clip_without_samples_is_a_silent_one(family: str) -> None:
    """Alone, in a batch, and cut into segments; a graph cannot refuse it."""
    encoder = build(family)
    silent = encoder(torch.zeros(1, 1), torch.tensor([1]))
    waveforms, lengths = noises(encoder)
    lengths[1] = 0
    together, alone = encoder(waveforms, lengths), encoder(torch.zeros(1, 0), torch.tensor([0]))
    for heard, row in ((together, 1), (alone, 0)):
        assert heard.embedding.isfinite().all()
        assert_close(heard.embedding[row], silent.embedding[0])
        if heard.valid is not None:
            assert heard.valid[row].sum() >= 1
    cut = encode_segments(encoder, waveforms, lengths)
    assert cut.valid[1].tolist()[0]
    assert_close(cut.embeddings[1, 0], silent.embedding[0])


@torch.no_grad()
def test_silence(family: str) -> None:
    encoder = build(family)
    heard = encoder(torch.zeros(1, 8000), torch.tensor([8000]))
    assert heard.embedding.isfinite().all()


def test_training_reaches_every_weight(family: str) -> None:
    encoder = build(family).train()
    heard = encoder(*noises(encoder))
    total = heard.embedding.square().sum()
    if heard.logits is not None:
        total = total + heard.logits.square().sum()
    total.backward()
    unreached = [
        name
        for name, weight in encoder.named_parameters()
        if weight.requires_grad and weight.grad is None
    ]
    assert unreached == []


def test_checkpointed_gradients_are_the_same(family: str) -> None:
    """Trading time for memory changes neither the outputs nor the gradients."""
    gradients = []
    for checkpointing in (False, True):
        # Dropout and patchout draw the same numbers in both runs.
        encoder = build(family, gradient_checkpointing=checkpointing).train()
        torch.manual_seed(8)
        encoder(*noises(encoder)).embedding.square().sum().backward()
        gradients.append({n: w.grad for n, w in encoder.named_parameters() if w.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert_close(gradients[1][name], gradient, 1e-4)


@torch.no_grad()
def test_half_precision_is_close(family: str) -> None:
    encoder = build(family)
    waveforms, lengths = noises(encoder)
    exact = encoder(waveforms, lengths).embedding
    with torch.autocast("cpu", torch.bfloat16):
        half = encoder(waveforms, lengths).embedding.float()
    assert torch.nn.functional.cosine_similarity(exact, half).min() > 0.99


@torch.no_grad()
def test_compiles_without_graph_breaks(family: str) -> None:
    torch._dynamo.reset()
    encoder = build(family)
    waveforms, lengths = noises(encoder)
    compiled = torch.compile(encoder, fullgraph=True, backend="eager")
    assert_close(
        compiled(waveforms, lengths).embedding, encoder(waveforms, lengths).embedding, 1e-4
    )


@pytest.mark.slow
@torch.no_grad()
def test_few_compilations_for_many_lengths(family: str) -> None:
    """Padded widths may vary without a compilation for each."""
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    encoder = build(family)
    compiled = torch.compile(encoder, fullgraph=True, backend=counter)
    for seconds in (1.0, 1.2, 1.4, 1.6, 1.8, 2.0):
        waveforms, lengths = noises(encoder, (seconds, 0.5))
        compiled(waveforms, lengths)
    assert counter.frame_count <= 2


@torch.no_grad()
def test_weights_survive_saving(family: str) -> None:
    encoder, other = build(family), FAMILIES[family].network(FAMILIES[family].tiny).eval()
    other.load_state_dict(encoder.state_dict())
    waveforms, lengths = noises(encoder)
    assert torch.equal(encoder(waveforms, lengths).embedding, other(waveforms, lengths).embedding)


@pytest.mark.parametrize("name", sorted(known_audio_encoders()))
def test_presets_build(name: str) -> None:
    """Every published preset is a network that can be built; no memory is spent on it."""
    with torch.device("meta"):
        assert audio_encoder(name).dimension > 0


@pytest.mark.parametrize("name", sorted(known_audio_encoders()))
def test_every_encoder_tells_how_it_hears(name: str) -> None:
    """Its settings are plain values that can be hashed."""
    with torch.device("meta"):
        assert len(audio_hash(audio_encoder(name))) == 64


def test_an_unknown_encoder_is_named() -> None:
    with pytest.raises(EarshotError, match="did you mean mn10"):
        audio_encoder("mn1O")


class Adder:
    """Hears how loud a segment is and how long."""

    dimension, segment_s, sample_rate_hz = 2, 1.0, 100

    def __call__(self, waveforms: torch.Tensor, lengths: torch.Tensor) -> Encoded:
        valid = torch.arange(waveforms.shape[1]) < lengths[:, None]
        embedding = torch.stack([(waveforms * valid).sum(1), lengths.float()], 1)
        return Encoded(embedding=embedding)


@pytest.mark.parametrize(
    ("samples", "count"), [(1, 1), (99, 1), (100, 1), (101, 2), (200, 2), (201, 3)]
)
def test_segment_counts_are_exact(samples: int, count: int) -> None:
    assert segment_counts(torch.tensor([samples]), 100, 100).tolist() == [count]


def test_segments_hold_all_audio_once() -> None:
    lengths = torch.tensor([250, 100, 30])
    heard = encode_segments(Adder(), torch.ones(3, 260), lengths)
    assert heard.valid.tolist() == [[True] * 3, [True, False, False], [True, False, False]]
    assert heard.embeddings[..., 0].tolist() == [[100, 100, 50], [100, 0, 0], [30, 0, 0]]
    assert heard.embeddings.sum(1)[:, 1].tolist() == lengths.tolist()


def test_overlapping_segments() -> None:
    heard = encode_segments(Adder(), torch.ones(1, 250), torch.tensor([250]), hop_s=0.5)
    assert heard.embeddings[0, :, 1].tolist() == [100, 100, 100, 100]


class CountingAdder(Adder):
    """Notes how many segments it is given at a time."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, waveforms: torch.Tensor, lengths: torch.Tensor) -> Encoded:
        self.sizes.append(len(waveforms))
        return super().__call__(waveforms, lengths)


def test_inference_hears_few_segments_at_a_time() -> None:
    adder, lengths = CountingAdder(), torch.tensor([2930, 730])
    waveforms = torch.rand(2, 2930, generator=torch.Generator().manual_seed(1))
    learning = encode_segments(adder, waveforms, lengths)
    with torch.no_grad():
        inference = encode_segments(adder, waveforms, lengths)
    assert adder.sizes == [38, 16, 16, 6]
    assert torch.equal(inference.embeddings, learning.embeddings)
