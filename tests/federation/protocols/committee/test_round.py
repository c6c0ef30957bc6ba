"""A round over the committee: exact, private, and ended without a trace where it must end."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Message

from fedgrpo.federation import FedGRPO
from fedgrpo.federation.protocols.committee import member as committee_member
from fedgrpo.federation.protocols.committee.convening.plan import payload_of
from fedgrpo.federation.wire.codec import decode, encode
from fedgrpo.federation.wire.messages import TrainOrder
from fedgrpo.federation.wire.plans import release_plan
from fedgrpo.ground.errors import SettingsError
from fedgrpo.privacy.accounting.composition import epsilon_subsampled
from fedgrpo.privacy.accounting.guarantees import guarantees
from fedgrpo.secure.committee import effective_noise
from fedgrpo.site import Refusal
from tests.federation.federation import (
    Federation,
    make_adapter,
    make_settings,
    vector_of,
)
from tests.federation.protocols.committee.rounds import COMMITTEE, of_encoded
from tests.federation.sites import code_of


def vanishing(step, member_place=0):
    """Lets one member go away at its ``step``-th message as a member."""
    seen = {}

    def drop(stage, node):
        if stage != "committee":
            return False
        seen[node] = seen.get(node, 0) + 1
        return node == 1001 + member_place and seen[node] >= step

    return drop


@pytest.mark.slow
@pytest.mark.parametrize("resident", [True, False])
def test_the_result_is_the_exact_trimmed_mean_of_encoded_releases(resident, monkeypatch):
    if not resident:  # As on a deployed node, where each message starts a process.

        class Forgetful(dict):
            def __setitem__(self, key, value):
                pass

        monkeypatch.setattr(committee_member, "_LIVE", Forgetful())
    federation = Federation(make_settings(**COMMITTEE), nodes=9)
    strategy = federation.run()
    assert np.array_equal(vector_of(strategy), of_encoded(federation, range(9)))
    assert strategy.history[-1].members == 4
    assert {stage for stage, _ in federation.grid.sent} == {"train", "deal", "committee"}


def deceived(partition):
    """A server that orders one node to compute at another adapter than all others."""

    class Deceiver(FedGRPO):
        def configure_train(self, server_round, arrays, config, grid):
            for message in super().configure_train(server_round, arrays, config, grid):
                node = message.metadata.dst_node_id
                order = decode(TrainOrder, message.content)
                other = order.adapter.moved(order.adapter.vector + 1)
                content = encode(order.header, replace(order, adapter=other))
                forged = Message(content, dst_node_id=node, message_type="train")
                yield forged if node == 1001 + partition else message

    return Deceiver


@pytest.mark.slow
def test_whoever_got_another_adapter_than_the_committee_is_in_no_result():
    federation = Federation(make_settings(**COMMITTEE), nodes=9)
    strategy = federation.run(deceived(7)(federation.settings))
    others = [partition for partition in range(9) if partition != 7]
    assert np.array_equal(vector_of(strategy), of_encoded(federation, others))


def test_a_committee_whose_members_got_different_adapters_opens_nothing():
    federation = Federation(make_settings(**COMMITTEE), nodes=9)
    strategy = federation.run(deceived(1)(federation.settings))
    assert not strategy.history[-1].applied
    assert not vector_of(strategy).any()


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "trimmed"), [("median", 4), ("norm_checked", 0)])
def test_every_rule_of_a_committee_gives_what_numpy_gives(rule, trimmed):
    federation = Federation(make_settings(**COMMITTEE | {"robust__rule": rule}), nodes=9)
    strategy = federation.run()
    assert np.array_equal(vector_of(strategy), of_encoded(federation, range(9), trimmed))


@pytest.mark.slow
def test_many_clients_are_trimmed_in_buckets_that_nobody_chose():
    federation = Federation(make_settings(**COMMITTEE | {"robust__trim": 1}), nodes=24)
    strategy = federation.run()
    assert (strategy.history[-1].finished, strategy.history[-1].buckets) == (24, 12)
    honest = np.stack([federation.delta(partition, 1) for partition in range(24)])
    assert np.abs(vector_of(strategy) - honest.mean(axis=0)).max() < 0.02


@pytest.mark.slow
def test_an_attacker_is_trimmed_and_dropouts_cost_their_places_only():
    federation = Federation(
        make_settings(**COMMITTEE, simulation__byzantine=1, simulation__clients=10),
        nodes=10,
        drop=lambda stage, node: (stage, node) in {("train", 1009), ("deal", 1008)},
    )
    strategy = federation.run()
    outcome = strategy.history[-1]
    assert (outcome.finished, outcome.dropped, outcome.reason) == (8, 2, "")
    honest = np.stack([federation.delta(partition, 1) for partition in (1, 2, 3, 4, 5, 6, 9)])
    slack = 1e-3
    assert (vector_of(strategy) <= honest.max(axis=0) + slack).all()
    assert (vector_of(strategy) >= honest.min(axis=0) - slack).all()


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 4, 8, 12])
def test_a_member_lost_in_mid_round_ends_it_without_an_opening_and_without_cost(step):
    federation = Federation(make_settings(**COMMITTEE), nodes=9, drop=vanishing(step, 2))
    strategy = federation.run()
    assert "committee ended the round" in strategy.history[-1].reason
    assert not vector_of(strategy).any()
    assert strategy.state.progress.charged == 0


def test_an_altered_message_between_members_is_found_out_and_opens_nothing(caplog):
    def tamper(stage, node, reply):
        if stage == "committee" and node == 1001:
            body = reply.content["Progress"]
            if post := body["post[][]"]:
                body["post[][]"] = [post[0][:-1] + bytes([post[0][-1] ^ 1]), *post[1:]]
        return reply

    federation = Federation(make_settings(**COMMITTEE), nodes=9, tamper=tamper)
    strategy = federation.run()
    assert "is not that message" in caplog.text
    assert "refused, message: " in strategy.history[-1].reason
    assert strategy.state.progress.charged == 0


@pytest.mark.slow
def test_a_replayed_message_of_an_old_round_ends_the_round(caplog):
    kept = {}

    def tamper(stage, node, reply):
        if stage == "committee" and node == 1001 and reply.has_content():
            round_ = reply.content["fedgrpo"]["round"]
            body = reply.content["Progress"]
            if round_ == 1:
                kept.setdefault(len(body["post[][]"]), list(body["post[][]"]))
            elif len(body["post[][]"]) in kept:
                body["post[][]"] = kept[len(body["post[][]"])]
        return reply

    federation = Federation(make_settings(**COMMITTEE, rounds=2), nodes=9, tamper=tamper)
    strategy = federation.run()
    assert "replayed" in caplog.text
    assert "refused, message: " in strategy.history[-1].reason
    assert strategy.state.progress.charged == 1


def test_a_member_with_other_settings_gets_no_result():
    federation = Federation(make_settings(**COMMITTEE), nodes=9)
    federation.grid.contexts[1001].run_config["robust.trim"] = 1
    strategy = federation.run()
    # It refuses the order to train, and nobody takes its place.
    assert "have not been seen" in strategy.history[-1].reason
    assert strategy.state.progress.charged == 0


def test_a_member_whose_settings_change_between_two_messages_ends_the_round():
    federation = Federation(make_settings(**COMMITTEE), nodes=9)
    config = federation.grid.contexts[1001].run_config

    def tamper(stage, node, reply):
        if stage == "deal":
            config["robust.trim"] = 1
        return reply

    federation.grid._tamper = tamper
    strategy = federation.run()
    assert "committee ended the round" in strategy.history[-1].reason
    assert strategy.state.progress.charged == 0


def test_fewer_than_2k_plus_3_participants_deal_nothing():
    with pytest.raises(SettingsError, match=r"set federation\.min_clients >= 7"):
        make_settings(**COMMITTEE | {"federation__min_clients": 6})
    few = Federation(
        make_settings(**COMMITTEE),
        nodes=9,
        drop=lambda stage, node: stage == "train" and node > 1006,
    )
    strategy = few.run()
    assert strategy.history[-1].reason
    assert {stage for stage, _ in few.grid.sent} == {"train"}
    assert strategy.state.progress.charged == 0


def test_too_few_who_dealt_end_the_round_before_anything_is_computed():
    federation = Federation(
        make_settings(**COMMITTEE),
        nodes=9,
        drop=lambda stage, node: stage == "deal" and node > 1006,
    )
    strategy = federation.run()
    assert "7 clients" in strategy.history[-1].reason
    assert strategy.state.progress.charged == 0


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["prompt", "client"])
def test_joint_noise_is_scaled_to_what_one_unit_moves_the_trimmed_mean_by(unit):
    dimension, noise = 6400, 2.0
    settings = make_settings(
        **COMMITTEE,
        privacy__unit=unit,
        privacy__noise_multiplier=noise,
        privacy__max_epsilon=1e6,
    )
    federation = Federation(settings, nodes=9, delta=lambda *_: np.zeros(dimension))
    strategy = federation.run(adapter=make_adapter(dimension))
    prompts = settings.grpo.prompts_per_step if unit == "prompt" else 1
    least = noise / (prompts * (9 - 4)) / np.sqrt(1 - settings.privacy.metrics_share)
    error = 5 / np.sqrt(2 * dimension)
    # Rounding may add up to 2 % to the sensitivity of a prompt; never is there less.
    assert 1 - error < vector_of(strategy).std() / least < 1.02 + error


def test_two_epsilons_are_stated_the_outsiders_and_that_of_a_curious_member():
    settings = make_settings(
        **COMMITTEE, privacy__unit="prompt", privacy__noise_multiplier=2.0, rounds=5
    )
    noise = effective_noise(2.0)
    rate = settings.grpo.prompts_per_step / settings.data.min_prompts
    expected = [
        epsilon_subsampled(z, rate, 5, settings.privacy.delta)
        for z in (noise.outsider, noise.member)
    ]
    stated = guarantees(settings, 5)
    assert [g.epsilon for g in stated] == pytest.approx(expected)
    assert "everybody but the committee" in stated[0].adversary
    assert "one curious committee member" in stated[1].adversary


@pytest.mark.slow
def test_a_member_takes_part_in_a_round_once_and_a_client_deals_once():
    federation = Federation(make_settings(**COMMITTEE), nodes=9)
    orders = []
    push = federation.grid._run_app

    def record(message, node):
        orders.append((node, copy.deepcopy(message)))
        return push(message, node)

    federation.grid._run_app = record
    federation.run()
    for node, message in orders:
        if message.metadata.message_type in ("query.deal", "query.committee"):
            answer = push(copy.deepcopy(message), node)
            assert isinstance(answer, Message)
            assert code_of(answer) in (Refusal.MESSAGE, Refusal.OUT_OF_TURN)


def test_client_noise_cannot_go_with_a_committee():
    with pytest.raises(SettingsError, match=r"privacy\.noise = 'client' cannot go"):
        make_settings(**COMMITTEE | {"privacy__noise": "client", "privacy__unit": "prompt"})


def test_a_deployed_node_deals_to_no_committee_that_only_the_server_names():
    federation = Federation(make_settings(**COMMITTEE), nodes=9)
    trained = federation.grid._run_app

    def deployed_after_training(message, node):
        if message.metadata.message_type == "query.deal":
            federation.grid.contexts[node].node_config = {}
        return trained(message, node)

    federation.grid._run_app = deployed_after_training
    strategy = federation.run()
    assert "no client is left" in strategy.history[-1].reason
    assert strategy.state.progress.charged == 0


@pytest.mark.slow
def test_what_passes_the_server_holds_no_word_of_any_release():
    federation = Federation(make_settings(**COMMITTEE), nodes=9, delta=wide_delta)
    passed = []
    push = federation.grid._run_app

    def record(message, node):
        answer = push(message, node)
        passed.extend([message.content, answer.content])
        return answer

    federation.grid._run_app = record
    federation.run(adapter=make_adapter(64))
    trace = b"".join(bytes_of(content) for content in passed)
    plan = release_plan(federation.settings, 64, federation.settings.privacy.clipping_norm)
    assert len(trace) > 300_000
    for release in federation.releases.values():
        assert np.count_nonzero(release) > 32
        for word in release[release != 0]:
            assert word.tobytes() not in trace
        words = payload_of(release, plan)
        # A word of 64 equal bits, as in the planes of small values, is everywhere.
        for word in words[(words != 0) & (words != 2**64 - 1)]:
            assert word.tobytes() not in trace


def wide_delta(partition, round):
    return np.random.default_rng([partition, round]).normal(scale=0.05, size=64)


def bytes_of(content):
    """All bytes of a message's records."""
    parts = []
    for record in content.values():
        for value in record.values():
            entries = value if isinstance(value, list) else [value]
            parts += [entry for entry in entries if isinstance(entry, bytes)]
            parts += [entry.data for entry in entries if hasattr(entry, "data")]
    return b"".join(parts)
