"""Hits as players: the moment itself, whole pages bounded, nothing that a name can break."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from earshot import notebook
from earshot.notebook import players
from earshot.types import Answer, EarshotError, Hit


def sounds_in(page: str) -> list[np.ndarray]:
    found = re.findall(r'src="data:audio/wav;base64,([^"]+)"', page)
    return [soundfile.read(io.BytesIO(base64.b64decode(text)))[0] for text in found]


@pytest.fixture
def ramp(tmp_path: Path) -> Path:
    """Twenty seconds that grow louder, so that a moment is known by its level."""
    path = tmp_path / "a <b> 'c'.wav"
    soundfile.write(path, np.linspace(0, 0.5, 20 * 16_000), 16_000)
    return path


def test_the_moment_is_what_plays(ramp: Path) -> None:
    page = players([Hit(path=str(ramp), score=0.5, start_s=4.0, end_s=6.0)])._repr_html_()
    (sound,) = sounds_in(page)
    assert len(sound) == 2 * notebook.RATE_HZ
    assert sound[0] == pytest.approx(0.1, abs=1e-3)
    assert sound[-1] == pytest.approx(0.15, abs=1e-3)
    assert "a &lt;b&gt; &#x27;c&#x27;.wav" in page
    assert "<b>" not in page
    assert "4.0–6.0 s" in page


def test_a_page_is_bounded(ramp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook, "MOST_CLIPS", 2)
    monkeypatch.setattr(notebook, "MOST_S", 1.5)
    hits = tuple(Hit(path=str(ramp), score=0.5, start_s=0.0, end_s=20.0) for _ in range(5))
    page = players(Answer(hits=hits))._repr_html_()
    assert [len(sound) for sound in sounds_in(page)] == [round(1.5 * notebook.RATE_HZ)] * 2
    assert "and 3 more" in page


def test_what_cannot_be_played_is_said(tmp_path: Path, ramp: Path) -> None:
    gone = Hit(path=str(tmp_path / "gone.wav"), score=0.5, start_s=0.0, end_s=1.0, probability=0.9)
    page = players([gone])._repr_html_()
    assert "no such file" in page
    assert "90%" in page
    assert players([])._repr_html_() == "<p>no recording matches</p>"
    with pytest.raises(EarshotError, match="is no span"):
        players([Hit(path=str(ramp), score=0.5, start_s=1.0, end_s=1.0)])._repr_html_()
