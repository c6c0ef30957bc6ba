from dataclasses import replace

import pytest

from fedgrpo.report import RoundRow, warnings
from tests.report.runs import START, round_row, run


@pytest.mark.parametrize("rounds", [0, 1, 10])
def test_a_healthy_run_has_no_warning(rounds: int) -> None:
    assert warnings(run(rounds)) == []


def test_no_rows_have_no_warning() -> None:
    assert warnings([]) == []


def test_groups_without_signal_are_named_with_a_cure() -> None:
    (warning,) = warnings([START, round_row(1, zero_signal=0.97)])
    assert "97 %" in warning
    assert "grpo.group_size" in warning


def test_truncated_completions_are_named_with_a_cure() -> None:
    (warning,) = warnings([START, round_row(1, truncated=0.93)])
    assert "93 %" in warning
    assert "grpo.max_completion_length" in warning


def test_one_noisy_figure_among_healthy_rounds_is_no_alarm() -> None:
    assert warnings([*run(5), round_row(6, zero_signal=0.99, truncated=0.99)]) == []


@pytest.mark.parametrize(("zero_signal", "truncated"), [(0.95, 0.5), (None, None)])
def test_figures_at_the_limit_or_not_measured_are_no_alarm(
    zero_signal: float | None, truncated: float | None
) -> None:
    assert warnings([round_row(1, zero_signal=zero_signal, truncated=truncated)]) == []


def test_three_skipped_rounds_in_a_row_are_named_with_their_reason() -> None:
    skipped = [round_row(n, applied=False, reason="only 7 of 9 nodes") for n in (4, 5, 6)]
    (warning,) = warnings([*run(3), *skipped])
    assert "Rounds 4 to 6" in warning
    assert "only 7 of 9 nodes" in warning
    assert "federation.min_clients" in warning
    assert warnings([*run(3), *skipped[:2]]) == []
    assert warnings([*run(3), *skipped, round_row(7)]) == []


def test_the_start_is_no_skipped_round() -> None:
    skipped = [round_row(n, applied=False, reason="late") for n in (1, 2)]
    assert warnings([START, *skipped]) == []


def measured(*rewards: float, kl: float = 0.0) -> list[RoundRow]:
    """The start and a measured round for each reward."""
    return [
        START,
        *(round_row(n, sampled=reward, kl_base=kl * n) for n, reward in enumerate(rewards, 1)),
    ]


def test_three_evaluations_below_the_start_say_so_and_name_the_best_adapter() -> None:
    (warning,) = warnings(measured(0.3, 0.15, 0.1, 0.12))
    assert "(2 to 4)" in warning
    assert "best adapter is kept" in warning
    assert warnings(measured(0.3, 0.15, 0.1)) == []
    assert warnings(measured(0.1, 0.1, 0.1, 0.16)) == []


def test_training_alone_is_told_of_evaluations_below_the_start_too() -> None:
    rows = [replace(row, clipping_norm=None) for row in measured(0.1, 0.1, 0.1)]
    (warning,) = warnings(rows)
    assert "below its start" in warning


def test_rounds_that_move_the_model_too_far_are_named_with_a_cure() -> None:
    (warning,) = warnings(measured(0.2, 0.2, kl=1.15))
    assert "round 1" in warning
    assert "1.1 nats" in warning or "1.2 nats" in warning
    assert "server.learning_rate" in warning
    assert warnings(measured(0.2, 0.2, kl=0.06)) == []


def test_nodes_that_move_too_far_within_a_round_are_named_between_evaluations() -> None:
    apart = [round_row(n, kl=0.8, sampled=None, greedy=None, kl_base=None) for n in (1, 2)]
    (warning,) = warnings([START, *apart])
    assert "0.8 nats" in warning
    assert "grpo.learning_rate" in warning
