"""A killed run goes on where it stopped, and pays for what it repeats."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedgrpo.errors import RunError
from fedgrpo.federation import FedGRPO
from fedgrpo.federation.checkpoint import (
    FILE,
    Progress,
    ServerState,
    load_checkpoint,
    resume,
    save_checkpoint,
)
from fedgrpo.federation.optimisers import OptimiserState
from fedgrpo.model.adapter import AdapterState
from fedgrpo.report.writer import RunWriter
from tests.federation.federation import (
    FakeEvaluator,
    Federation,
    make_adapter,
    make_settings,
    vector_of,
)

MEAN = {"robust__rule": "mean", "robust__trim": 0, "server__optimiser": "fedadam"}
"""With a mean, the result does not depend on who is drawn into which bucket."""


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


@pytest.mark.parametrize("stage", ["train", "share", "mask", "unmask"])
@pytest.mark.parametrize("round", [1, 3])
def test_a_resumed_run_ends_with_the_adapter_of_an_uninterrupted_one(tmp_path, stage, round):
    settings = make_settings(rounds=4, **MEAN)
    whole = Federation(settings).run(strategy_in(tmp_path / "whole", settings))

    broken = strategy_in(tmp_path / "broken", settings)
    with pytest.raises(KilledError):
        Federation(settings, drop=kill_at(stage, round)).run(broken)
    resumed = strategy_in(tmp_path / "broken", settings)
    Federation(settings, run_id=2).run(resumed)

    np.testing.assert_allclose(vector_of(resumed), vector_of(whole), atol=1e-5)
    assert resumed.state.progress.charged == 4 + 1, "the interrupted round is charged again"
    rows = RunWriter(tmp_path / "broken").rows()
    assert [row.round for row in rows] == [0, 1, 2, 3, 4]


def test_epsilon_counts_rounds_started_not_finished(tmp_path):
    noisy = {"privacy__unit": "client", "privacy__noise_multiplier": 20.0}
    settings = make_settings(rounds=2, **noisy)
    with pytest.raises(KilledError):
        Federation(settings, drop=kill_at("mask", 2)).run(strategy_in(tmp_path, settings))
    Federation(settings, run_id=2).run(strategy_in(tmp_path, settings))
    interrupted = RunWriter(tmp_path).rows()[-1].epsilon
    Federation(settings).run(strategy_in(tmp_path / "whole", settings))
    assert interrupted > RunWriter(tmp_path / "whole").rows()[-1].epsilon


def test_repeated_rounds_never_push_a_run_beyond_its_budget(tmp_path):
    from fedgrpo.privacy.accounting import worst_epsilon

    noisy = {"privacy__unit": "client", "privacy__noise_multiplier": 20.0, "rounds": 3}
    limit = worst_epsilon(make_settings(**noisy), 3)
    settings = make_settings(**noisy, privacy__max_epsilon=limit + 1e-6)
    with pytest.raises(KilledError):
        Federation(settings, drop=kill_at("mask", 2)).run(strategy_in(tmp_path, settings))
    resumed = strategy_in(tmp_path, settings)
    Federation(settings, run_id=2).run(resumed)
    assert resumed.state.progress.charged == 3
    assert [row.round for row in RunWriter(tmp_path).rows()] == [0, 1, 2]
    assert RunWriter(tmp_path).rows()[-1].sampled is not None, "its last round is evaluated"


def test_a_finished_run_has_nothing_left_to_do(tmp_path):
    settings = make_settings(rounds=2)
    done = Federation(settings).run(strategy_in(tmp_path, settings))
    again = Federation(settings, run_id=2)
    strategy = again.run(strategy_in(tmp_path, settings))
    assert again.grid.sent == []
    np.testing.assert_array_equal(vector_of(strategy), vector_of(done))


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
    monkeypatch.setattr("fedgrpo.federation.checkpoint.VERSION", "9.9.9")
    with pytest.raises(RunError, match=r"another version.*9\.9\.9"):
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
    with pytest.raises(RunError, match=r"damaged[\s\S]*remove it"):
        load_checkpoint(tmp_path / FILE, "f")


def test_a_crash_while_writing_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path, state = tmp_path / FILE, ServerState(make_adapter())
    save_checkpoint(path, state, "f")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(KilledError()))
    with pytest.raises(KilledError):
        save_checkpoint(path, state.charged(), "f")
    assert load_checkpoint(path, "f").progress.charged == 0
    assert [file.name for file in tmp_path.iterdir()] == [FILE]


@given(
    vector=arrays(np.float32, st.integers(1, 20), elements=st.floats(-1e6, 1e6, width=32)),
    norm=st.floats(1e-12, 1e12),
    numbers=st.tuples(*[st.integers(0, 10**9)] * 5),
)
def test_a_state_comes_back_exactly(tmp_path_factory, vector, norm, numbers):
    path = tmp_path_factory.mktemp("state") / FILE
    round, charged, dropped, skipped, steps = numbers
    state = ServerState(
        AdapterState(vector, {"a.b": vector[None], "c": np.arange(3)}, "l" * 64),
        Progress(round, norm, charged, dropped, skipped, steps),
        OptimiserState(steps, vector.astype(np.float64) / 3, np.zeros(0)),
    )
    save_checkpoint(path, state, "f")
    loaded = load_checkpoint(path, "f")
    assert loaded.progress == state.progress
    assert loaded.adapter.layout == state.adapter.layout
    assert loaded.adapter.basis_hash == state.adapter.basis_hash
    np.testing.assert_array_equal(loaded.adapter.vector, vector)
    np.testing.assert_array_equal(loaded.optimiser.first, state.optimiser.first)
    assert loaded.optimiser.steps == steps
