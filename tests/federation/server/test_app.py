"""A whole run from its configuration to its summary, without a model."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Context, RecordDict

from fedgrpo.federation import FedGRPO, make_server_app
from fedgrpo.federation.server.app import ADAPTER, Model
from fedgrpo.federation.server.checkpoint import FILE
from fedgrpo.ground.errors import CohortError, PrivacyError, RunError
from fedgrpo.ground.run_files import BEST_ADAPTER
from fedgrpo.report.reader import read_rows, read_status, read_summary
from tests.federation.federation import FakeEvaluator, Federation, make_settings
from tests.federation.runs import MODEL, SAVED, save


def serve(settings, *, run_id=1, strategy=FedGRPO, model=MODEL, **options):
    federation = Federation(settings, run_id=run_id, **options)
    context = Context(run_id, 1, {}, RecordDict(), settings.to_run_config())
    make_server_app(strategy, model=model)(federation.grid, context)
    return federation


@pytest.mark.slow
def test_a_run_leaves_everything_that_the_summary_promises(tmp_path):
    settings = make_settings(rounds=3, run__directory=str(tmp_path), evaluation__every=2)
    serve(settings, drop=lambda stage, node: (stage, node) == ("train", 1001))
    summary = json.loads((tmp_path / "summary.json").read_text())
    kept = {"start", "end", "greedy_start", "greedy_end", "by", "pass_at"}
    assert summary["reward"].keys() == kept
    assert summary["reward"]["start"] == 0 < summary["reward"]["end"]
    assert summary["rounds"] == 3
    words = summary["robust"].pop("words")
    assert words.startswith("trimmed mean of 3 group means")
    assert summary["robust"] == {"rule": "trimmed_mean", "trim": 1, "buckets": 3}
    assert summary["dropped"] == 3
    assert summary["privacy"] == []
    assert 0 < summary["overhead_share"] < 1
    assert summary["settings"] == settings.fingerprint()
    final = np.load(tmp_path / summary["adapter"] / SAVED)
    assert np.abs(final).max() > 0
    assert (tmp_path / "report.png").stat().st_size > 1000
    assert (tmp_path / FILE).exists()
    assert read_status(tmp_path).state == "finished"


class Falling:
    """Likes an adapter less the further it went."""

    def evaluate(self, adapter, *, at_end):
        measured = FakeEvaluator().evaluate(adapter)
        return replace(measured, sampled=-abs(measured.sampled))


@pytest.mark.slow
def test_the_best_adapter_on_held_out_prompts_is_kept_beside_the_last(tmp_path):
    settings = make_settings(rounds=2, run__directory=str(tmp_path), evaluation__every=1)
    serve(settings, model=replace(MODEL, evaluator=lambda settings: Falling()))
    best, last = (np.load(tmp_path / name / SAVED) for name in (BEST_ADAPTER, ADAPTER))
    assert np.abs(best).max() == 0 < np.abs(last).max()
    assert (tmp_path / BEST_ADAPTER / "README.md").exists()


class Thorough:
    """Says which evaluations were asked to take long."""

    def evaluate(self, adapter, *, at_end):
        return replace(FakeEvaluator().evaluate(adapter), pass_at={"8": 0.5} if at_end else {})


@pytest.mark.slow
def test_what_takes_long_is_measured_before_the_first_and_after_the_last_round(tmp_path):
    settings = make_settings(rounds=2, run__directory=str(tmp_path), evaluation__every=1)
    serve(settings, model=replace(MODEL, evaluator=lambda settings: Thorough()))
    assert [row.pass_at for row in read_rows(tmp_path)] == [{"8": 0.5}, {}, {"8": 0.5}]
    assert read_summary(tmp_path).reward.pass_at == {"8": {"start": 0.5, "end": 0.5}}


@pytest.mark.slow
def test_a_kill_before_the_best_adapter_is_kept_loses_it_not(tmp_path):
    settings = make_settings(rounds=2, run__directory=str(tmp_path), evaluation__every=1)

    def killed(settings, adapter, folder):
        # After the first round, which is better than the start whatever its noise.
        if len(read_rows(tmp_path)) == 2:
            raise KeyboardInterrupt
        save(settings, adapter, folder)

    with pytest.raises(KeyboardInterrupt):
        serve(settings, model=replace(MODEL, save=killed))
    folder = tmp_path / BEST_ADAPTER
    before = np.load(folder / SAVED)
    # Taken up where no later round can be better.
    with pytest.raises(CohortError):
        serve(settings, run_id=2, nodes=4)
    assert np.abs(np.load(folder / SAVED)).max() > np.abs(before).max()


@pytest.mark.slow
def test_overhead_is_the_wall_time_that_is_neither_training_nor_evaluation(tmp_path):
    settings = make_settings(rounds=2, run__directory=str(tmp_path))
    serve(settings)
    summary, rows = read_summary(tmp_path), read_rows(tmp_path)
    busy = sum(row.seconds.get("train", 0) + row.seconds.get("evaluate", 0) for row in rows)
    assert summary.overhead_share == pytest.approx(1 - busy / summary.wall_s)


@pytest.mark.slow
def test_privacy_is_stated_for_every_adversary(tmp_path):
    settings = make_settings(
        run__directory=str(tmp_path), privacy__unit="client", privacy__noise_multiplier=20.0
    )
    serve(settings)
    worst, alone = read_summary(tmp_path).privacy
    assert worst.epsilon == read_rows(tmp_path)[-1].epsilon > alone.epsilon > 0
    assert "colluding" in worst.adversary


@pytest.mark.slow
def test_the_same_configuration_resumes_a_killed_run(tmp_path):
    settings = make_settings(rounds=3, run__directory=str(tmp_path))

    def kill(stage, node):
        if stage == "mask" and len(read_rows(tmp_path)) == 2:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        serve(settings, drop=kill)
    assert read_status(tmp_path).state == "interrupted"
    assert read_status(tmp_path).cure == "the same command resumes"
    serve(settings, run_id=2)
    assert [row.round for row in read_rows(tmp_path)] == [0, 1, 2, 3]
    assert read_summary(tmp_path).rounds == 3
    assert read_status(tmp_path).state == "finished"


def test_a_failed_run_says_why_and_what_to_do(tmp_path):
    settings = make_settings(run__directory=str(tmp_path))
    with pytest.raises(CohortError):
        serve(settings, nodes=4)
    status = read_status(tmp_path)
    assert status.state == "failed"
    assert status.problem == "4 clients are online after 0.2 s, 9 are needed"
    assert "start more nodes" in status.cure


def test_a_budget_that_does_not_suffice_is_refused_before_the_model_is_loaded(tmp_path):
    def never(settings):
        raise AssertionError("the model was loaded")

    settings = make_settings(
        run__directory=str(tmp_path), privacy__unit="client", privacy__noise_multiplier=0.1
    )
    with pytest.raises(PrivacyError):
        serve(settings, model=Model(never, never, save))
    assert "epsilon" in read_status(tmp_path).problem


def test_the_status_never_holds_text_of_foreign_code(tmp_path):
    def broken(settings):
        raise ValueError("PRIVATE")

    settings = make_settings(run__directory=str(tmp_path))
    with pytest.raises(ValueError, match="PRIVATE"):
        serve(settings, model=Model(broken, broken, save))
    assert read_status(tmp_path).problem == "ValueError"


def test_a_run_without_a_directory_gets_one_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    serve(make_settings(), run_id=77)
    assert (tmp_path / "runs" / "77" / "summary.json").exists()


def test_a_picture_that_cannot_be_drawn_is_no_reason_to_fail(tmp_path, monkeypatch):
    monkeypatch.setattr("fedgrpo.report.plots.plot_run", lambda run_dir: 1 / 0)
    serve(make_settings(run__directory=str(tmp_path)))
    assert read_status(tmp_path).state == "finished"


@pytest.mark.slow
def test_a_directory_of_another_run_is_not_written_over(tmp_path):
    serve(make_settings(run__directory=str(tmp_path)))
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(RunError, match="other settings"):
        serve(make_settings(run__directory=str(tmp_path), seed=1), run_id=2)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


@pytest.mark.slow
def test_a_strategy_of_ones_own_runs_the_whole_thing(tmp_path):
    class Own(FedGRPO):
        def aggregate_train(self, server_round, replies):
            moved, metrics = super().aggregate_train(server_round, replies)
            moved["vector"] = type(moved["vector"])(np.full(6, 3.0, np.float32))
            return moved, metrics

    serve(make_settings(run__directory=str(tmp_path)), strategy=Own)
    np.testing.assert_array_equal(np.load(tmp_path / ADAPTER / SAVED), np.full(6, 3.0))
