"""Figures on their way into a release and out of its aggregate: scaled, held to 0 to 1, covered."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.federation.node.clients.figures import of_groups, told_metrics
from fedgrpo.federation.protocols.base import read_result
from fedgrpo.federation.server.round import told
from fedgrpo.federation.wire.plans import release_plan
from fedgrpo.ground.errors import SettingsError
from fedgrpo.privacy.grid import GridSum
from fedgrpo.privacy.release import release_prompts, release_update, zero_release
from fedgrpo.settings import METRICS, Settings

FILE = Path(__file__).parents[3] / "rewards" / "measured.py"
LENGTH, SHARE = "metrics/length", "metrics/share_of_a"
SPANS = {LENGTH: (0.0, 4.0), SHARE: (0.0, 1.0)}
K = len(METRICS) + 2


def settings(metrics: str = f"{FILE}:length, reward, {FILE}:share_of_a", **more: str) -> Settings:
    flat = {"privacy.metrics": metrics, "privacy.unit": "none"}
    return Settings.from_run_config(flat | {k.replace("__", "."): v for k, v in more.items()})


def figures(length: float = 1.0, share: float = 0.25) -> dict[str, np.ndarray]:
    known = {name: np.full(1, 0.5) for name in METRICS}
    return {**known, LENGTH: np.array([length]), SHARE: np.array([share])}


def test_users_own_follow_the_table_in_the_order_of_the_settings() -> None:
    assert settings().privacy.coordinates == (*METRICS, LENGTH, SHARE)
    assert release_plan(settings(), 3, 1.0).size == 3 + K
    other = settings(f"reward, {FILE}:share_of_a, {FILE}:length")
    assert other.privacy.coordinates == (*METRICS, SHARE, LENGTH)
    assert other.fingerprint() != settings().fingerprint()


def test_a_figure_reads_back_as_what_was_measured() -> None:
    plan = release_plan(settings(), 2, 1.0)
    sent = told_metrics(figures(), settings(), SPANS)[0]
    assert sent[-2:].tolist() == [0.25, 0.25]  # 1 of 0 to 4, and a quarter as it is.
    assert np.isnan(sent[[list(METRICS).index(name) for name in ("kl", "truncated")]]).all()
    aggregate = read_result(settings(), plan, release_update(np.ones(2), sent, plan, bytes(32)))
    shown = told(settings(), aggregate.metrics)
    assert list(shown) == ["reward", LENGTH, SHARE]
    assert [shown[LENGTH], shown[SHARE]] == pytest.approx([1.0, 0.25])


@pytest.mark.parametrize("unknown", [{}, {SHARE: (0.0, 1.0)}])
def test_a_figure_that_nobody_measured_contributes_nothing(unknown: dict[str, object]) -> None:
    sent = told_metrics(figures(), settings(), unknown)[0]  # type: ignore[arg-type]
    assert np.isnan(sent[-2])


def test_a_rows_failure_costs_its_unit_that_rows_figure_only() -> None:
    every = [figures(length) for length in (1.0, np.nan, 3.0)]
    rows = [{name: value for name, value in row.items() if name != "kl"} for row in every]
    unit = of_groups(rows)
    assert unit[LENGTH].tolist() == [2.0]
    assert unit[SHARE].tolist() == [0.25]
    assert unit["kl"].tolist() == [0.0]
    assert np.isnan(of_groups(rows[1:2])[LENGTH]).all()


@given(st.floats(width=64), st.floats(width=64))
def test_one_unit_moves_the_release_by_at_most_its_share_whatever_a_metric_says(
    length: float, share: float
) -> None:
    run = settings(privacy__unit="prompt", privacy__noise="server")
    plan = release_plan(run, 2, 1.0)
    told_by = told_metrics(figures(length, share), run, SPANS)[0]
    unit = GridSum.of_unit(np.array([3.0, 4.0]), told_by, plan.clipping_norm)
    others = GridSum.of_unit(np.ones(2), told_metrics(figures(), run, SPANS)[0], 1.0)
    moved = release_prompts(others + unit, plan) - release_prompts(others, plan)
    assert np.linalg.norm(moved) <= 1 / plan.expected_prompts
    most = np.sqrt(plan.metrics_share / K) / plan.expected_prompts
    assert np.abs(moved[-2:]).max() <= most * (1 + 1e-9)


def test_what_nobody_contributes_has_the_noise_and_the_length_of_any_other() -> None:
    run = settings(privacy__unit="prompt")
    plan = release_plan(run, 2000, 1.0)
    nothing = zero_release(plan, bytes(32))
    assert nothing.shape == (plan.size,)
    assert nothing[-2:].all()


def test_two_figures_of_one_name_are_refused() -> None:
    with pytest.raises(SettingsError, match="two figures that are called 'f'") as caught:
        settings("a.py:f, b.py:f")
    assert "another name" in caught.value.cure
