"""The jobs of an array share out the files: each is one job's, and one index holds them all."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import make_recordings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from earshot.library import Plan, carry_out, compare, index
from earshot.model import model_manifest
from earshot.shards import Shard, part_of, read_shard
from earshot.store import create_store, open_store
from earshot.types import EarshotError, Model


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # Of a busy machine.
@given(st.lists(st.text(min_size=1, max_size=20), unique=True, max_size=50), st.integers(1, 20))
def test_every_file_is_of_exactly_one_part(paths: list[str], count: int) -> None:
    whole = Plan(known={}, new=tuple(paths), removed=tuple(paths))
    parts = [part_of(whole, Shard(number=i, count=count)) for i in range(1, count + 1)]
    assert sorted(path for part in parts for path in part.new) == sorted(paths)
    assert all(part.new == part.removed for part in parts)


def test_parts_are_alike_in_size_and_never_change() -> None:
    paths = [f"/sounds/{i}.wav" for i in range(4000)]
    sizes = [sum(map(Shard(number=i, count=4).holds, paths)) for i in range(1, 5)]
    assert sum(sizes) == 4000
    assert min(sizes) > 850
    # Jobs of another day and machine must share out the same.
    assert [i for i in range(12) if Shard(number=2, count=3).holds(f"/a/{i}.wav")] == [4, 5, 9]


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "1/", "a/b", "-1/4", "1/0", "1/4/2", ""])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(EarshotError, match="of N there are 1/N to N/N"):
        read_shard(text)


def test_parts_in_turn_make_the_whole(tmp_path: Path, random_model: Model) -> None:
    """Also when files are gone: a part forgets its own alone."""
    paths = make_recordings(tmp_path, 8)
    whole = create_store(":memory:", model_manifest(random_model))
    shared = create_store(":memory:", model_manifest(random_model))
    index([tmp_path], whole, random_model)

    def run(number: int) -> tuple[int, int]:
        plan = compare([tmp_path], shared.files(), prune=True)
        summary = carry_out(part_of(plan, Shard(number=number, count=3)), shared, random_model)
        return summary.added, summary.removed

    assert sum(run(number)[0] for number in (1, 2, 3)) == 8
    assert shared.files() == whole.files()
    for path, file in shared.segments(shared.files()).items():
        expected = whole.segments([path])[path]
        assert file.segments == expected.segments
        assert np.abs(file.vectors - expected.vectors).max() < 1e-5
    for path in paths:
        path.unlink()
    removed = [run(number)[1] for number in (1, 2, 3)]
    assert sum(removed) == 8
    assert max(removed) < 8
    assert not shared.files()


def test_jobs_at_the_same_time_write_one_index(
    tmp_path: Path, home: Path, random_model: Model
) -> None:
    pytest.importorskip("lancedb")
    make_recordings(tmp_path / "sounds", 12)
    command = [sys.executable, "-m", "earshot", "index", str(tmp_path / "sounds")]
    command += ["--to", str(tmp_path / "library"), "--model", "tags-mn05", "--device", "cpu"]
    jobs = [
        subprocess.Popen([*command, "--shard", f"{i}/2"], stderr=subprocess.PIPE, text=True)
        for i in (1, 2)
    ]
    assert [(job.communicate()[1], job.returncode) for job in jobs] == [("", 0)] * 2
    files = open_store(str(tmp_path / "library")).files()
    assert sorted(files) == sorted(map(str, (tmp_path / "sounds").iterdir()))
