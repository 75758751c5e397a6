"""Contact sheets: what is drawn, and where on the time axis."""

import numpy as np
import pytest
import torch

from syncflow.clip import Clip
from syncflow.evaluation.report.contact_sheet import contact_sheet

Image = pytest.importorskip("PIL.Image")

RED, BLUE, WAVE = (214, 39, 40), (31, 90, 220), (70, 90, 120)


@pytest.fixture
def clip() -> Clip:
    """Black, then green from 1 s on; sound only in the last half second."""
    video = torch.zeros(32, 3, 32, 32, dtype=torch.uint8)
    video[16:, 1] = 200
    audio = torch.zeros(96000)
    audio[72000:] = torch.linspace(0, 3000, 24000).sin()
    return Clip(video, audio)


def where(sheet: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """x of every column that holds more than a dot of ``colour``."""
    return ((np.abs(sheet.astype(int) - colour).max(-1) <= 2).sum(0) > 2).nonzero()[0]


def test_frames_waveform_and_marks_share_one_time_axis(clip, tmp_path) -> None:
    path = tmp_path / "sheet.png"
    assert contact_sheet([clip], ["a ball"], path, frames=8, marks=[([1.0], [1.5])]) == path
    assert list(tmp_path.iterdir()) == [path]
    sheet = np.asarray(Image.open(path))
    left, width = 16, 8 * 48
    assert sheet.shape[1] == width + 32
    green = where(sheet, (0, 200, 0))
    assert abs(green.min() - (left + width / 2)) <= 3 and green.max() > left + width - 4
    loud = where(sheet, WAVE)
    assert abs(loud.min() - (left + width * 0.75)) <= 3
    assert np.abs(where(sheet, RED) - (left + width / 2)).max() <= 1
    assert np.abs(where(sheet, BLUE) - (left + width * 0.75)).max() <= 1


def test_columns_and_long_captions(clip, tmp_path) -> None:
    one = Image.open(contact_sheet([clip], ["a"], tmp_path / "1.png", frames=4))
    two = Image.open(contact_sheet([clip] * 2, ["a", "b"], tmp_path / "2.png", frames=4))
    four = Image.open(contact_sheet([clip] * 4, ["a"] * 4, tmp_path / "4.png", frames=4))
    long = Image.open(contact_sheet([clip], ["word " * 40], tmp_path / "5.png", frames=4))
    assert two.width > 1.8 * one.width and two.height == one.height
    assert four.width == two.width and four.height > 1.6 * two.height
    assert long.height > one.height and long.width == one.width


def test_mistakes_write_nothing(clip, tmp_path) -> None:
    with pytest.raises(ValueError, match="1 clips, 2 prompts"):
        contact_sheet([clip], ["a", "b"], tmp_path / "a.png")
    with pytest.raises(ValueError, match="got 0"):
        contact_sheet([clip], ["a"], tmp_path / "a.png", frames=0)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        contact_sheet([clip], ["a"], tmp_path / "gone" / "a.png")
    assert not list(tmp_path.iterdir())
