"""How many nodes a round needs, and what happens when they are not there."""

from __future__ import annotations

import time

import numpy as np
import pytest
from flwr.app import Error, Message

from fedgrpo.federation import FedGRPO
from fedgrpo.federation.wire.messages import write_adapter
from fedgrpo.ground.errors import CohortError, DataError, PrivacyError, SettingsError
from fedgrpo.report.writer import RunWriter
from tests.federation.federation import (
    FakeEvaluator,
    Federation,
    make_adapter,
    make_settings,
    vector_of,
)


def test_too_few_nodes_online_end_the_run_within_the_limit():
    federation = Federation(make_settings(federation__wait_s=0.3), nodes=8)
    begun = time.monotonic()
    with pytest.raises(CohortError, match=r"8 clients are online after 0\.3 s, 9 are needed"):
        federation.run()
    assert time.monotonic() - begun < 2
    assert federation.grid.sent == [], "nobody was asked to release anything"


def test_nodes_that_come_late_are_waited_for(monkeypatch):
    federation = Federation(make_settings(federation__wait_s=5.0))
    looks = []

    def online():
        looks.append(1)
        return federation.grid.online if len(looks) > 2 else federation.grid.online[:5]

    monkeypatch.setattr(federation.grid, "get_node_ids", online)
    strategy = federation.run()
    assert strategy.state.progress.dropped == 0
    assert len(looks) == 3


def test_too_few_participants_skip_the_round_and_spend_its_privacy(tmp_path):
    writer = RunWriter(tmp_path)
    settings = make_settings(rounds=2)
    rounds = []

    def drop(stage, node):
        if stage == "train" and node == 1001:
            rounds.append(1)
        return stage == "train" and len(rounds) == 1 and node < 1005

    federation = Federation(settings, drop=drop)
    strategy = federation.run(FedGRPO(settings, writer=writer))
    skipped, applied = writer.rows()[1:]
    assert not skipped.applied
    assert skipped.reason == "8 of 12 clients finished, 9 are needed (4 x Node unavailable)"
    assert (skipped.finished, skipped.dropped, skipped.update_norm) == (0, 4, None)
    assert applied.applied
    assert strategy.state.progress.charged == 2
    assert strategy.state.progress.skipped == 1


def test_too_few_buckets_skip_the_round_instead_of_trimming_less():
    federation = Federation(
        make_settings(rounds=1), nodes=9, drop=lambda s, n: s == "mask" and n % 2
    )
    strategy = federation.run()
    assert strategy.state.progress.skipped == 1
    assert "needs 3 buckets" in strategy.history[-1].reason
    assert not vector_of(strategy).any()


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["share", "mask", "unmask"])
@pytest.mark.parametrize("rule", ["trimmed_mean", "median", "mean"])
def test_a_round_whose_every_bucket_is_lost_is_skipped(stage, rule):
    settings = make_settings(robust__rule=rule)
    strategy = Federation(settings, drop=lambda s, node: s == stage).run()
    assert strategy.state.progress.skipped == 1
    assert strategy.state.progress.dropped == 12
    assert "there are 0" in strategy.history[-1].reason
    assert not vector_of(strategy).any()


def test_three_skipped_rounds_in_a_row_fail_with_what_the_nodes_said():
    def client(settings, node_config):
        partition = int(node_config["partition-id"])
        if partition < 3:
            raise DataError("prompt file has 12 rows, 2000 are needed", cure="add prompts")
        if partition < 5:
            raise ValueError("PRIVATE prompt text")
        return Federation(settings)._client(settings, node_config)

    federation = Federation(make_settings(rounds=9), client=client)
    with pytest.raises(CohortError) as caught:
        federation.run()
    problem = caught.value.problem
    assert "3 rounds in a row were skipped" in problem
    assert "7 of 12 clients finished, 9 are needed" in problem
    assert "5 x refused, failed: ask the site to look at its own log" in problem
    assert "PRIVATE" not in problem


def test_what_a_node_says_cannot_forge_a_log():
    """Nodes of our own send codes only; whoever runs another program may send any error."""

    def forged(stage, node, reply):
        return Message(Error(2, "line\nERROR forged \x1b[31m" + "x" * 1000), reply_to=reply)

    federation = Federation(make_settings(rounds=3), tamper=forged)
    with pytest.raises(CohortError) as caught:
        federation.run()
    assert caught.value.problem.isprintable()
    assert len(caught.value.problem) < 500


def test_more_rounds_than_the_budget_was_checked_for_are_refused():
    federation = Federation(make_settings(rounds=2))
    with pytest.raises(SettingsError, match="num_rounds = 3 is more than rounds = 2"):
        FedGRPO(federation.settings).start(federation.grid, write_adapter(make_adapter()), 3)


def test_a_run_beyond_its_budget_is_refused_before_anybody_is_asked():
    settings = make_settings(privacy__unit="client", privacy__noise_multiplier=0.1, rounds=5)
    federation = Federation(settings)
    with pytest.raises(PrivacyError, match="epsilon"):
        federation.run()
    assert federation.grid.sent == []


@pytest.mark.slow
def test_a_subclass_may_change_one_step_and_keep_the_rest():
    class WithoutTheFirst(FedGRPO):
        def configure_train(self, server_round, arrays, config, grid):
            orders = super().configure_train(server_round, arrays, config, grid)
            return [order for order in orders if order.metadata.dst_node_id != 1001]

    class Halved(FedGRPO):
        def aggregate_train(self, server_round, replies):
            moved, metrics = super().aggregate_train(server_round, replies)
            vector = moved["vector"].numpy()
            moved["vector"] = type(moved["vector"])(vector / 2)
            return moved, metrics

    federation = Federation(make_settings())
    strategy = federation.run(WithoutTheFirst(federation.settings))
    assert ("train", 1001) not in federation.grid.sent
    assert strategy.state.progress.dropped == 0

    settings = make_settings(robust__rule="mean", robust__trim=0)
    whole = vector_of(Federation(settings, nodes=9).run())
    halved = vector_of(Federation(settings, nodes=9).run(Halved(settings)))
    np.testing.assert_allclose(halved, whole / 2, atol=1e-7)


def test_replies_left_out_by_a_subclass_cost_those_nodes_the_round():
    class Picky(FedGRPO):
        def aggregate_train(self, server_round, replies):
            return super().aggregate_train(server_round, list(replies)[2:])

    federation = Federation(make_settings())
    strategy = federation.run(Picky(federation.settings))
    assert strategy.state.progress.dropped == 2
    assert not {("share", 1001), ("share", 1002)} & set(federation.grid.sent)


@pytest.mark.slow
def test_evaluation_is_before_the_first_round_every_few_and_after_the_last(tmp_path):
    settings = make_settings(rounds=5, evaluation__every=2)
    writer = RunWriter(tmp_path)
    Federation(settings).run(FedGRPO(settings, writer=writer, evaluator=FakeEvaluator()))
    assert [row.round for row in writer.rows()] == [0, 1, 2, 3, 4, 5]
    assert [row.round for row in writer.rows() if row.sampled is not None] == [0, 2, 4, 5]
    assert writer.rows()[0].sampled == 0.0


@pytest.mark.slow
def test_an_evaluate_fn_is_called_as_flower_calls_it():
    federation, seen = Federation(make_settings(rounds=2)), []
    result = FedGRPO(federation.settings).start(
        federation.grid,
        write_adapter(make_adapter()),
        evaluate_fn=lambda number, arrays: seen.append(
            (number, float(arrays["vector"].numpy()[0]))
        ),
    )
    assert [number for number, _ in seen] == [0, 1, 2]
    assert float(result.arrays["vector"].numpy()[0]) == seen[-1][1]
    assert set(result.train_metrics_clientapp) == {1, 2}
