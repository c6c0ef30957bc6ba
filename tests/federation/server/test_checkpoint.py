"""A killed run goes on where it stopped, and refuses what is not its own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedgrpo.federation import FedGRPO
from fedgrpo.federation.server.checkpoint import (
    FILE,
    Pending,
    Progress,
    ServerState,
    load_checkpoint,
    resume,
    save_checkpoint,
)
from fedgrpo.federation.server.optimisers import OptimiserState
from fedgrpo.ground.errors import CohortError, RunError
from fedgrpo.model.adapter import AdapterState
from fedgrpo.privacy.accounting.guarantees import worst_epsilon
from fedgrpo.report.writer import RunWriter
from tests.federation.federation import (
    FakeEvaluator,
    Federation,
    make_adapter,
    make_settings,
    vector_of,
)


class KilledError(BaseException):
    """Stands for a kill: nothing may catch it."""


def strategy_in(directory, settings, kind=FedGRPO):
    return kind(
        settings,
        evaluator=FakeEvaluator(),
        writer=RunWriter(directory),
        checkpoint=directory / FILE,
    )


def kill_at(stage, round):
    seen = []

    def drop(at, node):
        if node == 1001 and at == "train":
            seen.append(1)
        if at == stage and len(seen) == round:
            raise KilledError
        return False

    return drop


@pytest.mark.slow
def test_epsilon_counts_a_round_that_was_begun_and_never_finished(tmp_path):
    noisy = {"privacy__unit": "client", "privacy__noise_multiplier": 20.0}
    settings = make_settings(rounds=2, **noisy)
    with pytest.raises(KilledError):
        Federation(settings, drop=kill_at("mask", 2)).run(strategy_in(tmp_path, settings))
    assert load(tmp_path, settings).progress.charged == 2
    assert load(tmp_path, settings).progress.round == 2


@pytest.mark.slow
def test_a_round_that_is_repeated_after_a_kill_is_charged_once(tmp_path):
    noisy = {"privacy__unit": "client", "privacy__noise_multiplier": 20.0, "rounds": 3}
    limit = worst_epsilon(make_settings(**noisy), 3)
    settings = make_settings(**noisy, privacy__max_epsilon=limit + 1e-6)
    with pytest.raises(KilledError):
        Federation(settings, drop=kill_at("mask", 2)).run(strategy_in(tmp_path, settings))
    resumed = strategy_in(tmp_path, settings)
    Federation(settings, run_id=2).run(resumed)
    assert resumed.state.progress.charged == 3
    rows = RunWriter(tmp_path).rows()
    assert [row.round for row in rows] == [0, 1, 2, 3]
    assert rows[-1].epsilon == limit


@pytest.mark.slow
def test_rounds_skipped_before_a_kill_count_towards_giving_up(tmp_path):
    settings = make_settings(rounds=9)

    def nobody(stage, node):
        return stage == "train" and node < 1009

    def drop(stage, node):
        if len(RunWriter(tmp_path).rows()) == 3:
            raise KilledError
        return nobody(stage, node)

    with pytest.raises(KilledError):
        Federation(settings, drop=drop).run(strategy_in(tmp_path, settings))
    with pytest.raises(CohortError, match="3 rounds in a row"):
        Federation(settings, drop=nobody, run_id=2).run(strategy_in(tmp_path, settings))
    assert [row.round for row in RunWriter(tmp_path).rows()] == [0, 1, 2, 3]
    Federation(settings, run_id=3).run(strategy_in(tmp_path, settings))
    assert [row.round for row in RunWriter(tmp_path).rows()] == list(range(10))


def load(directory, settings):
    return load_checkpoint(directory / FILE, settings.fingerprint()).state


@pytest.mark.slow
def test_a_finished_run_has_nothing_left_to_do(tmp_path):
    settings = make_settings(rounds=2)
    done = Federation(settings).run(strategy_in(tmp_path, settings))
    again = Federation(settings, run_id=2)
    strategy = again.run(strategy_in(tmp_path, settings))
    assert again.grid.sent == []
    np.testing.assert_array_equal(vector_of(strategy), vector_of(done))


@pytest.mark.slow
def test_a_kill_before_the_first_round_leaves_no_stale_row(tmp_path):
    settings = make_settings(rounds=1)

    class Dies(FedGRPO):
        def configure_train(self, *args):
            raise KilledError

    with pytest.raises(KilledError):
        Federation(settings).run(strategy_in(tmp_path, settings, Dies))
    assert [row.round for row in RunWriter(tmp_path).rows()] == [0]
    Federation(settings, run_id=2).run(strategy_in(tmp_path, settings))
    assert [row.round for row in RunWriter(tmp_path).rows()] == [0, 1]


@pytest.mark.slow
def test_a_checkpoint_of_other_settings_is_refused_with_the_cure(tmp_path):
    settings = make_settings(rounds=2)
    Federation(settings).run(strategy_in(tmp_path, settings))
    other = make_settings(rounds=2, seed=1)
    with pytest.raises(RunError, match="other settings") as caught:
        Federation(other, run_id=2).run(strategy_in(tmp_path, other))
    assert "set run.directory to an empty directory" in caught.value.cure


def test_a_checkpoint_of_another_version_is_refused(tmp_path, monkeypatch):
    settings = make_settings()
    save_checkpoint(tmp_path / FILE, ServerState(make_adapter()), settings.fingerprint())
    monkeypatch.setattr("fedgrpo.federation.server.checkpoint.VERSION", "9.9.9")
    with pytest.raises(RunError, match=r"another version.*9\.9\.9"):
        load_checkpoint(tmp_path / FILE, settings.fingerprint())


def test_a_checkpoint_of_other_code_is_refused(tmp_path, monkeypatch):
    settings = make_settings()
    save_checkpoint(tmp_path / FILE, ServerState(make_adapter()), settings.fingerprint())
    monkeypatch.setattr("fedgrpo.federation.server.checkpoint.code_hash", lambda: "f" * 64)
    with pytest.raises(RunError, match=r"other code of the same version.*now ffff") as caught:
        load_checkpoint(tmp_path / FILE, settings.fingerprint())
    assert "resume with those, or set run.directory" in caught.value.cure


def test_a_checkpoint_of_another_format_is_refused(tmp_path, monkeypatch):
    settings = make_settings()
    monkeypatch.setattr("fedgrpo.federation.server.checkpoint.FORMAT", 1)
    save_checkpoint(tmp_path / FILE, ServerState(make_adapter()), settings.fingerprint())
    monkeypatch.undo()
    with pytest.raises(RunError, match="another format of checkpoints"):
        load_checkpoint(tmp_path / FILE, settings.fingerprint())


def test_a_checkpoint_of_another_base_model_is_refused(tmp_path):
    settings = make_settings()
    save_checkpoint(tmp_path / FILE, ServerState(make_adapter()), settings.fingerprint())
    other = AdapterState(make_adapter().vector, make_adapter().basis, "b" * 64)
    with pytest.raises(RunError, match="another base model"):
        resume(tmp_path / FILE, settings, other)


@pytest.mark.parametrize("content", [b"", b"not safetensors", bytes(100)])
def test_a_damaged_checkpoint_is_refused_with_the_cure(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(RunError, match=r"damaged[\s\S]*restore it"):
        load_checkpoint(tmp_path / FILE, "f")


def test_a_crash_while_writing_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path, state = tmp_path / FILE, ServerState(make_adapter())
    save_checkpoint(path, state, "f")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(KilledError()))
    with pytest.raises(KilledError):
        save_checkpoint(path, state.charged(), "f")
    assert load_checkpoint(path, "f").state.progress.charged == 0
    assert [file.name for file in tmp_path.iterdir()] == [FILE]


@pytest.mark.slow
@given(
    vector=arrays(np.float32, st.integers(1, 20), elements=st.floats(-1e6, 1e6, width=32)),
    norm=st.floats(1e-12, 1e12),
    numbers=st.tuples(*[st.integers(0, 10**9)] * 5),
)
def test_a_state_comes_back_exactly(tmp_path_factory, vector, norm, numbers):
    path = tmp_path_factory.mktemp("state") / FILE
    round, charged, dropped, skipped, steps = numbers
    state = ServerState(
        AdapterState(vector, {"a.b": vector[None], "c": np.arange(3)}, "c" * 64),
        Progress(round, norm, charged, dropped, skipped, steps),
        OptimiserState(steps, vector.astype(np.float64) / 3, np.zeros(0)),
    )
    save_checkpoint(path, state, "f", Pending("row", "line\n", 7))
    stored = load_checkpoint(path, "f")
    loaded = stored.state
    assert stored.pending == Pending("row", "line\n", 7)
    assert loaded.progress == state.progress
    assert loaded.adapter.layout == state.adapter.layout
    assert loaded.adapter.basis_hash == state.adapter.basis_hash
    np.testing.assert_array_equal(loaded.adapter.vector, vector)
    np.testing.assert_array_equal(loaded.optimiser.first, state.optimiser.first)
    assert loaded.optimiser.steps == steps
