"""Files of strangers: weights, model folders, caches and archives run no code and stay in place."""

import ast
import io
import itertools
import json
import pickle
import shutil
import stat
import struct
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from payloads import GADGETS, PLACES, SHAPES, STATE, Call, by_opcodes, by_persistent_id, saved
from safetensors.torch import save_file
from test_cli import earshot, refused
from tiny_hub import save_clap

from earshot.datasets.archives import unpack
from earshot.encoders.folders import require_own_files
from earshot.encoders.sentence import sentence_encoder
from earshot.encoders.tags import load_table
from earshot.encoders.text import TextConfig, TextTower
from earshot.encoders.tiny_text import tiny_text_folder
from earshot.features import Work, table
from earshot.model.calibration import read_calibration
from earshot.model.folder import load_dual, save_dual
from earshot.model.imports import import_checkpoint, known_formats
from earshot.model.joint import JointModel
from earshot.model.onnx_model import session
from earshot.teach import load_teachers
from earshot.train.run import RunFolder
from earshot.types import EarshotError
from earshot.weights import read_safetensors, read_torch, read_weights


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """What a payload would write."""
    return tmp_path / "canary.npy"


@pytest.fixture
def evil(tmp_path: Path, canary: Path) -> Path:
    """A checkpoint that would write the canary."""
    path = tmp_path / "evil.pt"
    path.write_bytes(saved({"weight": GADGETS["os.system"](canary)}, True))
    return path


def test_the_payloads_do_run_where_they_are_trusted(tmp_path: Path) -> None:
    """Else the canaries of the other tests would prove nothing."""
    for number, gadget in enumerate(GADGETS.values()):
        place = tmp_path / str(number)
        place.mkdir()
        (place / "payload").write_bytes(pickle.dumps(gadget(place / "canary.npy"), protocol=2))
    code = (
        "import pathlib, pickle, sys, warnings, torch\n"
        "warnings.simplefilter('ignore')\n"
        "for path in pathlib.Path(sys.argv[1]).glob('*/payload'):\n"
        "    try: pickle.loads(path.read_bytes())\n"
        "    except Exception: pass\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=300)
    ran = [(tmp_path / str(number) / "canary.npy").exists() for number in range(len(GADGETS))]
    assert [name for name, did in zip(GADGETS, ran, strict=True) if not did] == []


def attack(path: Path, canary: Path, gadget: str, shape: str, place: str) -> None:
    """Read one file that would run something."""
    path.write_bytes(SHAPES[shape](PLACES[place](GADGETS[gadget](canary))))
    case = f"{gadget} in {place} as {shape}"
    if shape == "another part":
        assert set(read_weights(path).tensors) == set(STATE), case
    else:
        with pytest.raises(EarshotError) as raised:
            read_weights(path)
        assert "\n" not in str(raised.value), case
    assert not canary.exists(), case


@pytest.mark.parametrize("shape", SHAPES)
def test_no_shape_of_a_pickle_runs(tmp_path: Path, canary: Path, shape: str) -> None:
    for gadget in GADGETS:
        attack(tmp_path / "w.pt", canary, gadget, shape, "a weight")
    for place in PLACES:
        attack(tmp_path / "w.pt", canary, "eval", shape, place)


@pytest.mark.reliability
def test_no_gadget_runs_anywhere(tmp_path: Path, canary: Path) -> None:
    for gadget, shape, place in itertools.product(GADGETS, SHAPES, PLACES):
        attack(tmp_path / "w.pt", canary, gadget, shape, place)


def test_pickles_that_no_pickler_writes(tmp_path: Path, canary: Path) -> None:
    contents = {**by_opcodes(canary), "persistent id": by_persistent_id(canary)}
    for name, content in contents.items():
        (tmp_path / "w.pt").write_bytes(content)
        with pytest.raises(EarshotError) as raised:
            read_weights(tmp_path / "w.pt")
        assert "\n" not in str(raised.value), name
        assert not canary.exists(), name


def test_no_array_of_pointers_is_made_of_a_file_s_bytes(tmp_path: Path) -> None:
    """`numpy.ndarray` would take any bytes for objects: their addresses were the file's choice."""
    forged = Call(np.ndarray, (1,), np.dtype("O"), b"\x41" * 8)
    structured = np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")])
    content = {"model": STATE, "forged": forged, "own": structured, "rate": np.float64(0.25)}
    torch.save(content, tmp_path / "w.pt")
    found = read_torch(tmp_path / "w.pt")
    assert not any(isinstance(value, np.ndarray) for value in found.values())
    assert found["rate"] == 0.25
    assert type(found["rate"]) is float
    assert torch.equal(read_weights(tmp_path / "w.pt").tensors["layer.weight"], torch.ones(2))


@pytest.mark.parametrize(
    "value", [np.float32(1.5), np.int64(-3), np.bool_(True), np.uint8(7), np.float64(0.1)]
)
def test_numbers_of_numpy_keep_their_value(tmp_path: Path, value: Any) -> None:
    torch.save({"value": value, "swapped": np.dtype(">f4").type(2.5)}, tmp_path / "w.pt")
    found = read_torch(tmp_path / "w.pt")
    assert found == {"value": value.item(), "swapped": 2.5}


def storage() -> Any:
    return torch.storage.TypedStorage(
        wrap_storage=torch.ones(4).untyped_storage(), dtype=torch.float32, _internal=True
    )


@pytest.mark.parametrize(
    ("offset", "shape", "stride"),
    [(0, (64,), (1,)), (9, (4,), (1,)), (-1, (4,), (1,)), (0, (4,), (-1,)), (0, (10**12,), (1,))],
)
def test_a_tensor_beyond_its_storage_is_refused(
    tmp_path: Path, offset: int, shape: tuple[int], stride: tuple[int]
) -> None:
    lying = Call(torch._utils._rebuild_tensor_v2, storage(), offset, shape, stride, False, {})
    torch.save({"weight": lying}, tmp_path / "w.pt")
    with pytest.raises(EarshotError, match="no checkpoint of tensors alone"):
        read_weights(tmp_path / "w.pt")


def test_what_no_network_is_made_of_is_named(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        strange = {
            "sparse": torch.eye(3).to_sparse(),
            "complex": torch.ones(2, dtype=torch.complex64),
            "meta": torch.ones(2, device="meta"),
        }
        for name, value in strange.items():
            torch.save({name: value}, tmp_path / "w.pt")
            with pytest.raises(EarshotError, match=f"{name} is no plain array of real numbers"):
                read_weights(tmp_path / "w.pt")
    torch.save({3: torch.ones(1)}, tmp_path / "w.pt")
    with pytest.raises(EarshotError, match="no state dict"):
        read_weights(tmp_path / "w.pt")


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """Torch stores its parts as they are; one that grows was made to fill memory."""
    whole = io.BytesIO(saved({"weight": torch.zeros(4_000_000)}, True))
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(tmp_path / "w.pt", "w", 8) as bomb:
        for name in source.namelist():
            bomb.writestr(name, source.read(name))
    assert (tmp_path / "w.pt").stat().st_size < 100_000
    with pytest.raises(EarshotError, match=r"unpack to 16\d{6} bytes, the file has far fewer"):
        read_weights(tmp_path / "w.pt")


GOOD = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
LYING: dict[str, tuple[Any, int | None]] = {
    "a header beyond the file": ({"a": GOOD}, 10**6),
    "a header beyond the address space": ({"a": GOOD}, 2**64 - 1),
    "a header of nothing": ({"a": GOOD}, 0),
    "a header one byte short": ({"a": GOOD}, -1),
    "offsets beyond the file": ({"a": {**GOOD, "shape": [16], "data_offsets": [0, 64]}}, None),
    "offsets that overlap": ({"a": GOOD, "b": GOOD}, None),
    "offsets that leave a hole": ({"a": {**GOOD, "shape": [1], "data_offsets": [12, 16]}}, None),
    "offsets backwards": ({"a": {**GOOD, "data_offsets": [16, 0]}}, None),
    "a shape that overflows": ({"a": {**GOOD, "shape": [2**62, 4]}}, None),
    "a shape too large": ({"a": {**GOOD, "shape": [2**40]}}, None),
    "a negative shape": ({"a": {**GOOD, "shape": [-4]}}, None),
    "a shape of words": ({"a": {**GOOD, "shape": ["four"]}}, None),
    "an unknown dtype": ({"a": {**GOOD, "dtype": "F33"}}, None),
    "no dtype": ({"a": {"shape": [4], "data_offsets": [0, 16]}}, None),
    "a list": ([1], None),
    "torn JSON": (b'{"a": ', None),
    "no UTF-8": (b'{"\xff": 1}', None),
    "a name twice": (
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
        b'"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}',
        None,
    ),
    "deep JSON": (b'{"a":' * 100_000, None),
    "metadata of numbers": ({"__metadata__": {"x": 1}, "a": GOOD}, None),
}


def lying(case: str) -> bytes:
    header, length = LYING[case]
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    claimed = len(text) if length is None else length if length >= 0 else len(text) + length
    return struct.pack("<Q", claimed) + text + bytes(16)


@pytest.mark.parametrize("case", LYING)
def test_a_lying_header_of_safetensors_is_refused(tmp_path: Path, case: str) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(lying(case))
    for read in (read_safetensors, read_calibration, read_weights):
        with pytest.raises(EarshotError, match=r"w\.safetensors") as raised:
            read(path)
        assert "\n" not in str(raised.value)
        assert len(str(raised.value)) < 500


def test_a_header_of_a_hundred_megabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 101_000_000) + b'{"a":')
        file.truncate(101_000_100)
    with pytest.raises(EarshotError, match="header too large"):
        read_safetensors(path)


@pytest.mark.reliability
def test_every_byte_of_a_header_may_be_wrong(tmp_path: Path) -> None:
    """Never another error than ours, never another shape than what is there."""
    good, path = tmp_path / "good.safetensors", tmp_path / "w.safetensors"
    save_file({"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2).half()}, good)
    content = good.read_bytes()
    for place in range(len(content)):
        for bit in range(8):
            path.write_bytes(
                content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]
            )
            try:
                found = read_safetensors(path)
            except EarshotError:
                continue
            sizes = [value.numel() * value.element_size() for value in found.values()]
            assert sum(sizes) <= len(content)


@pytest.mark.parametrize("format", known_formats())
def test_no_format_of_import_runs_code(
    tmp_path: Path, evil: Path, canary: Path, format: str
) -> None:
    with pytest.raises(EarshotError, match="nothing in it was run|does not hear AudioSet's"):
        import_checkpoint(evil, format, tmp_path / "model")
    assert not canary.exists()
    assert not (tmp_path / "model").exists()


def test_the_commands_refuse_such_files(tmp_path: Path, evil: Path, canary: Path) -> None:
    (tmp_path / "a.wav").touch()
    for command in (
        ("import", evil, "--as", "mn04", "--to", tmp_path / "model"),
        ("embed", tmp_path / "a.wav", "--encoder", "mn04", "--checkpoint", evil),
    ):
        more = ("--out", tmp_path / "x.npz") if command[0] == "embed" else ()
        assert "nothing in it was run" in refused(earshot(*map(str, (*command, *more))))
    assert not canary.exists()


SENTENCES = ("a dog barks", "rain falls on a roof")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text encoder's folder; nobody changes it."""
    return tiny_text_folder(tmp_path_factory.mktemp("bare") / "text", SENTENCES)


@pytest.fixture
def text_folder(bare: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(bare, tmp_path / "text"))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def readers(folder: Path) -> Iterator[Any]:
    yield lambda: TextTower(folder, TextConfig())
    yield lambda: sentence_encoder(folder)


def test_weights_of_torch_in_a_hub_folder_are_not_run(
    text_folder: Path, evil: Path, canary: Path, tmp_path: Path
) -> None:
    (text_folder / "model.safetensors").unlink()
    shutil.copy(evil, text_folder / "pytorch_model.bin")
    for read in readers(text_folder):
        with pytest.raises(EarshotError, match="no text encoder that can be loaded"):
            read()
    save_clap(tmp_path / "clap")
    (tmp_path / "clap" / "model.safetensors").unlink()
    shutil.copy(evil, tmp_path / "clap" / "pytorch_model.bin")
    with pytest.raises(EarshotError, match="no dual encoder that can be loaded"):
        JointModel(str(tmp_path / "clap"), "cpu")
    assert not canary.exists()


@pytest.mark.parametrize(
    "shard", ["../stolen.safetensors", "/etc/passwd", "a/../../x", "..\\x", "C:x", "..", "", 7]
)
def test_shards_outside_of_the_folder_are_refused(
    text_folder: Path, tmp_path: Path, shard: Any
) -> None:
    weights = text_folder / "model.safetensors"
    shutil.copy(weights, tmp_path / "stolen.safetensors")
    names = list(read_safetensors(weights))
    weights.unlink()
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, shard)}
    (text_folder / "model.safetensors.index.json").write_text(json.dumps(index))
    for read in readers(text_folder):
        with pytest.raises(EarshotError, match="weights outside of its folder"):
            read()


def test_a_folder_s_own_code_is_never_run(
    text_folder: Path, canary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is anybody asked whether it should be, which would wait for an answer."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    code = f"open({str(canary)!r}, 'w').close()\nclass Own: pass\n"
    save_clap(tmp_path / "clap")
    kinds = ("AutoConfig", "AutoModel", "AutoTokenizer")
    for folder in (text_folder, tmp_path / "clap"):
        (folder / "own.py").write_text(code)
        own = {"auto_map": dict.fromkeys(kinds, "own.Own") | {"AutoTokenizer": ["own.Own"] * 2}}
        for name in ("config.json", "tokenizer_config.json"):
            edit(folder / name, **own)
    for read in readers(text_folder):
        read()
    JointModel(str(tmp_path / "clap"), "cpu")
    edit(text_folder / "config.json", model_type="own", architectures=["Own"])
    edit(tmp_path / "clap" / "tokenizer_config.json", tokenizer_class="OwnTokenizer")
    for read in readers(text_folder):
        with pytest.raises(EarshotError, match="can be loaded"):
            read()
    try:
        JointModel(str(tmp_path / "clap"), "cpu")
    except EarshotError as error:
        assert "can be loaded" in str(error)
    assert not canary.exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"attn_implementation": "stranger/kernel"},
        {"_attn_implementation": {"": "stranger/kernel:function"}},
        {"text_config": {"attn_implementation": "stranger/kernel"}},
    ],
)
def test_attention_of_strangers_is_not_fetched(text_folder: Path, settings: dict[str, Any]) -> None:
    edit(text_folder / "config.json", **settings)
    for read in readers(text_folder):
        with pytest.raises(EarshotError, match="attention fetched from 'stranger/kernel"):
            read()


def test_adapters_of_other_networks_are_refused(text_folder: Path) -> None:
    (text_folder / "adapter_config.json").write_text('{"base_model_name_or_path": "x/y"}')
    with pytest.raises(EarshotError, match="adapter of another network"):
        require_own_files(text_folder)


def test_a_tokenizer_reads_no_file_outside_of_its_folder(text_folder: Path, tmp_path: Path) -> None:
    """What its settings name instead is passed over: the same tokens come of it."""
    before = TextTower(text_folder, TextConfig()).tokenize(SENTENCES)["input_ids"]
    secret = tmp_path / "secret.txt"
    secret.write_text("top\nsecret\n")
    named = dict.fromkeys(("vocab_file", "tokenizer_file", "merges_file"), str(secret))
    edit(text_folder / "tokenizer_config.json", **named)
    tower = TextTower(text_folder, TextConfig())
    assert torch.equal(tower.tokenize(SENTENCES)["input_ids"], before)
    assert "secret" not in tower.tokenize.tokenizer.get_vocab()


@pytest.mark.parametrize("content", [b"[1]", b'{"a": ', b"\xff\xfe", b"[" * 200_000, b"null"])
def test_damaged_settings_of_a_folder_are_one_line(text_folder: Path, content: bytes) -> None:
    for name in ("config.json", "sentence_bert_config.json", "modules.json"):
        kept = (text_folder / name).read_bytes() if (text_folder / name).exists() else None
        (text_folder / name).write_bytes(content)
        if name != "modules.json" or content != b"[1]":
            with pytest.raises(EarshotError) as raised:
                sentence_encoder(text_folder)
            assert "\n" not in str(raised.value)
        (text_folder / name).unlink()
        if kept is not None:
            (text_folder / name).write_bytes(kept)


def test_a_model_folder_with_a_pickle_for_weights(
    bare: Path, tmp_path: Path, evil: Path, canary: Path
) -> None:
    from test_training import model

    from earshot.model.dual import DualEncoder

    folder = tmp_path / "model"
    save_dual(DualEncoder(model(bare), bare).eval(), folder, name="own")
    shutil.copy(evil, folder / "model.safetensors")
    with pytest.raises(EarshotError, match="damaged safetensors"):
        load_dual(folder)
    (folder / "model.safetensors").unlink()
    shutil.copy(evil, folder / "pytorch_model.bin")  # Nothing takes it for the weights instead.
    with pytest.raises(EarshotError, match=r"lacks model\.safetensors"):
        load_dual(folder)
    assert not canary.exists()


def test_a_run_s_state_is_not_run(tmp_path: Path, canary: Path) -> None:
    run = RunFolder(path=tmp_path)
    state = {"network": STATE, "epoch": 1}
    run.save_state(state)
    assert run.load_state()["epoch"] == 1
    for content in (
        saved(PLACES["an optimizer"](GADGETS["eval"](canary)), True),
        b"torn",
        saved([1, 2], True),
    ):
        (tmp_path / "state.pt").write_bytes(content)
        with pytest.raises(EarshotError, match=r"state\.pt") as raised:
            run.load_state()
        assert "\n" not in str(raised.value)
    assert not canary.exists()


TEACHERS = {
    "teachers": [{"model": "m", "fingerprint": "f"}],
    "clips": ["a"],
    "captions": ["b"],
    "texts": "0" * 64,
}


def objects(canary: Path) -> np.ndarray:
    values = np.empty((2, 2), dtype=object)
    values[:] = Call(eval, f"open({str(canary)!r}, 'w').close()")
    return values


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_teachers_caches_and_tables_hold_no_objects(tmp_path: Path, canary: Path) -> None:
    folder = tmp_path / "teachers"
    (folder / "0").mkdir(parents=True)
    (folder / "teachers.json").write_text(json.dumps(TEACHERS))
    np.save(folder / "0" / "text.npy", np.ones((1, 2), np.float32))
    np.save(folder / "0" / "audio.npy", objects(canary), allow_pickle=True)
    with pytest.raises(EarshotError, match=r"audio\.npy holds no vectors"):
        load_teachers(folder)

    network = torch.nn.Linear(1, 1)
    work = Work(kind="audio", fingerprint="f" * 40, ids=("a", "b"), block_rows=64, blocks=iter)
    place = tmp_path / f"audio-{'f' * 32}"
    place.mkdir()
    (place / "table.json").write_text('{"dimension": 2}')
    np.save(place / "values.npy", objects(canary), allow_pickle=True)
    with pytest.raises(EarshotError, match="is damaged .*delete it"):
        table(work, network, tmp_path, None)  # type: ignore[arg-type]

    names = ("vectors", "vectors_scale", "coefficients", "coefficients_scale", "kernel_width")
    arrays = dict.fromkeys((*names, "fitted_on"), objects(canary))
    np.savez(tmp_path / "t.npz", **arrays)
    with pytest.raises(EarshotError, match="no table of phrases"):
        load_table(tmp_path / "t.npz")
    assert not canary.exists()


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1000000000000), }",
        b"{'descr': '|O', 'fortran_order': False, 'shape': (1, 1), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 4), }",
        b"__import__('os').system('true')",
        b"{'descr': '<f4'}",
        b"(" * 5000,
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_lying_arrays_of_a_teacher(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "teachers.json").write_text(json.dumps(TEACHERS))
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(16)
    for side in ("audio", "text"):
        (tmp_path / "0" / f"{side}.npy").write_bytes(content)
    with pytest.raises(EarshotError, match=r"audio\.npy holds no vectors"):
        load_teachers(tmp_path)


@pytest.mark.parametrize("location", ["../secret.bin", "{absolute}", "link.bin", "gone.bin"])
def test_a_graph_reads_no_weights_outside_of_its_folder(tmp_path: Path, location: str) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.arange(4, dtype="<f4").tobytes())
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link.bin").symlink_to(secret)
    weight = onnx.TensorProto(name="w", data_type=1, dims=[4], data_location=1)
    stored = {"location": location.format(absolute=secret), "offset": "0", "length": "16"}
    for key, value in stored.items():
        weight.external_data.add(key=key, value=value)
    ends = [onnx.helper.make_tensor_value_info(name, 1, [4]) for name in ("x", "y")]
    node = onnx.helper.make_node("Add", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "g", ends[:1], ends[1:], [weight])
    opset = [onnx.helper.make_opsetid("", 18)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=9)
    (folder / "audio.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(EarshotError, match=r"audio\.onnx cannot be loaded"):
        session(folder / "audio.onnx")


def zip_of(path: Path, *members: tuple[str, int], content: bytes = b"x") -> Path:
    """A zip archive of members with their Unix kind and permissions."""
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")  # It warns of equal names.
        for name, mode in members:
            info = zipfile.ZipInfo("placeholder")
            info.filename = name
            info.external_attr = mode << 16
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return path


FILE = stat.S_IFREG | 0o644
UNSAFE: dict[str, tuple[tuple[str, int], ...]] = {
    "parent": (("../canary.npy", FILE),),
    "parent inside": (("a/../../canary.npy", FILE),),
    "absolute": (("/tmp/canary.npy", FILE),),
    "backslashes": (("..\\..\\canary.npy", FILE),),
    "a drive": (("C:\\canary.npy", FILE),),
    "a share": (("\\\\host\\share\\canary.npy", FILE),),
    "a link, then a file through it": (("a", stat.S_IFLNK | 0o777), ("a/canary.npy", FILE)),
    "a device": (("disk", stat.S_IFBLK | 0o666),),
    "a terminal": (("tty", stat.S_IFCHR | 0o666),),
    "a pipe": (("pipe", stat.S_IFIFO | 0o666),),
    "a socket": (("socket", stat.S_IFSOCK | 0o666),),
    "one name twice": (("a.wav", FILE), ("a.wav", FILE)),
    "a file that is a folder": (("a", FILE), ("a/b.wav", FILE)),
}


@pytest.mark.parametrize("case", UNSAFE)
def test_an_archive_that_leads_elsewhere_writes_nothing(tmp_path: Path, case: str) -> None:
    archive = zip_of(tmp_path / "evil.zip", ("good.wav", FILE), *UNSAFE[case])
    (tmp_path / "to" / "deep").mkdir(parents=True)
    with pytest.raises(EarshotError, match=r"evil\.zip") as raised:
        unpack(archive, tmp_path / "to" / "deep")
    assert "\n" not in str(raised.value)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["deep", "evil.zip", "to"]


def test_names_that_differ_by_case_or_form_are_all_kept_or_refused(tmp_path: Path) -> None:
    """As the disk can hold them: none takes the place of another in silence."""
    names = ("Rain.wav", "rain.wav", "caf\u00e9.wav", "cafe\u0301.wav")
    archive = zip_of(tmp_path / "x.zip", *((name, FILE) for name in names))
    try:
        unpack(archive, tmp_path / "to")
    except EarshotError as error:
        assert "one to this disk" in str(error)
        assert not list((tmp_path / "to").iterdir())
    else:
        assert len(list((tmp_path / "to").iterdir())) == len(names)


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from earshot.datasets import archives

    monkeypatch.setattr(archives, "SMALL_BYTES", 1 << 20)
    bomb = zip_of(tmp_path / "x.zip", ("silence.wav", FILE), content=bytes(20 << 20))
    with pytest.raises(EarshotError, match="unpacks to 20971520; this is no archive to trust"):
        unpack(bomb, tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_an_archive_that_lies_of_its_sizes_is_damaged(tmp_path: Path) -> None:
    """What it states is what was checked; it never gets more room than that."""
    path = zip_of(tmp_path / "x.zip", ("a.wav", FILE), content=bytes(5_000_000))
    lie = bytearray(path.read_bytes())
    for place in range(len(lie) - 4):
        if lie[place : place + 4] == struct.pack("<I", 5_000_000):
            lie[place : place + 4] = struct.pack("<I", 10)
    path.write_bytes(lie)
    with pytest.raises(EarshotError, match="damaged or no archive"):
        unpack(path, tmp_path / "to")
    assert not list((tmp_path / "to").rglob("*.wav"))


@pytest.mark.reliability
@pytest.mark.parametrize("kind", ["zip", "7z"])
def test_every_byte_of_an_archive_may_be_wrong(tmp_path: Path, kind: str) -> None:
    """It is unpacked into its place, or refused in one line; nothing lies beside."""
    py7zr = pytest.importorskip("py7zr")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").write_bytes(bytes(range(64)))
    path, to = tmp_path / f"x.{kind}", tmp_path / "to"
    if kind == "zip":
        zip_of(path, ("in/a.wav", FILE), content=bytes(range(64)))
    else:
        with py7zr.SevenZipFile(path, "w") as archive:
            archive.writeall(tmp_path / "in", "in")
    content = path.read_bytes()
    refusals = 0
    for place in range(len(content)):
        for flip in (0x01, 0x80, 0xFF):
            wrong = content[:place] + bytes([content[place] ^ flip]) + content[place + 1 :]
            path.write_bytes(wrong)
            shutil.rmtree(to, ignore_errors=True)
            try:
                unpack(path, to)
            except EarshotError as error:
                assert "\n" not in str(error)
                refusals += 1
                assert not to.exists() or not list(to.rglob("*.wav"))
            assert {p.name for p in tmp_path.iterdir()} <= {"in", "to", path.name}
    assert refusals > len(content)


PACKAGE = Path(__file__).parent.parent / "earshot"
FORBIDDEN = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "tarfile"}
HARMLESS = {"UnpicklingError"}  # What a reader says of a bad file; it reads nothing.


def calls(tree: ast.AST) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each call of an attribute: of what, which, and its constant options by name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            options = {
                word.arg: word.value.value
                for word in node.keywords
                if word.arg and isinstance(word.value, ast.Constant)
            }
            yield owner.id if isinstance(owner, ast.Name) else "", node.func.attr, options


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_no_reader_trusts_its_file(path: Path) -> None:
    """Whoever adds a reader says that it trusts nothing; who adds one of objects is stopped."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert not FORBIDDEN & {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            foreign = (node.module or "").split(".")[0] in FORBIDDEN
            assert not foreign or {alias.name for alias in node.names} <= HARMLESS
    for owner, name, options in calls(tree):
        if owner == "torch" and name == "load":
            assert options.get("weights_only") is True
        if owner in ("np", "numpy") and name == "load":
            assert options.get("allow_pickle") is False
        if owner == "yaml":
            assert name.startswith("safe_")
        if owner.startswith("Auto") and name == "from_pretrained":
            assert options.get("trust_remote_code") is False
        assert options.get("trust_remote_code") is not True
