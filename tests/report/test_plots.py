import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from fedgrpo.ground.errors import RunError
from fedgrpo.report import RoundRow, RunWriter
from fedgrpo.report.plots import draw, plot_run
from tests.report.runs import START, SUMMARY, round_row, run


def drawn(tmp_path: Path, rows: Sequence[RoundRow]) -> Path:
    writer = RunWriter(tmp_path)
    for row in rows:
        writer.row(row)
    return plot_run(tmp_path)


@pytest.mark.slow
def test_the_picture_has_its_size_and_ink_in_all_four_panels(tmp_path: Path) -> None:
    RunWriter(tmp_path).summary(SUMMARY)
    path = drawn(tmp_path, run(12))
    assert path == tmp_path / "report.png"
    pixels = imread(path)[..., :3]
    assert pixels.shape[:2] == (1000, 1600)
    for panel in (pixels[150:500, :800], pixels[150:500, 800:], pixels[550:, :800]):
        assert np.mean(np.ptp(panel, axis=-1) > 0.1) > 0.001  # Coloured, not only grey text.
    assert np.mean(np.ptp(pixels[550:, 800:], axis=-1) > 0.1) > 0.05
    assert sorted(os.listdir(tmp_path)) == [
        "metrics.jsonl",
        "report.png",
        "status.json",
        "summary.json",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "rows",
    [
        [START],
        [START, round_row(1)],
        [round_row(n, epsilon=None, kl_base=None, sampled=None, greedy=None) for n in (1, 2)],
        [round_row(1, kl=-0.01, reward=None, seconds={}, finished=0, dropped=0)],
        [START, *(round_row(n, applied=False, reason="late", reward=None) for n in range(1, 90))],
    ],
    ids=["only the start", "one round", "nothing held out", "negative KL", "all skipped"],
)
def test_any_run_can_be_drawn_without_a_warning(tmp_path: Path, rows: list[RoundRow]) -> None:
    with warnings.catch_warnings(action="error"):
        assert drawn(tmp_path, rows).stat().st_size > 10_000


def test_the_picture_says_what_was_learnt_and_spent() -> None:
    figure = draw(run(4), SUMMARY)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert "Held-out accuracy: sampled 0.16 → 0.36, greedy 0.29 → 0.49" in titles
    words = " ".join(text.get_text() for text in figure.texts)
    assert "epsilon 5.39" in words
    assert "trimmed mean of 4 group means" in words
    assert "5.00" in [text.get_text() for axes in figure.axes for text in axes.texts]


def test_a_run_without_differential_privacy_says_so() -> None:
    figure = draw([round_row(1, epsilon=None)], None)
    words = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert "no differential privacy" in words


def test_a_run_without_a_round_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"metrics\.jsonl has no finished round"):
        plot_run(tmp_path)


def test_drawing_touches_no_global_state_and_the_room_loads_neither_torch_nor_flower() -> None:
    code = (
        "import sys, fedgrpo.report\n"
        "assert not {'torch', 'flwr', 'matplotlib'} & set(sys.modules)\n"
        "import fedgrpo.report.plots\n"
        "assert not {'torch', 'flwr', 'matplotlib.pyplot'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
