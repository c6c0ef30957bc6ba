"""What a round computes, with honest nodes, dropouts, liars and broken replies."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from flwr.app import Array, ConfigRecord, Error, Message
from scipy.stats import trim_mean

from fedgrpo.federation import FedGRPO
from fedgrpo.federation.protocols.buckets import secure_round
from fedgrpo.federation.wire.codec import HEADER
from fedgrpo.report.reader import read_rows
from fedgrpo.report.writer import RunWriter
from tests.federation.federation import (
    DIMENSION,
    Federation,
    make_adapter,
    make_settings,
    small_delta,
    vector_of,
)
from tests.federation.packed import PACKED, arrays_of, record_of

# Rounding of releases (bound 2, four members: 2^-29), read back with C / sqrt(1 - a), and float32
# adapters.
FIXED_POINT = 1e-7


@pytest.fixture
def in_order(monkeypatch):
    """Buckets of neighbours, so that a test knows who is where: 1001-1003, 1004-1006, ..."""

    def assign(participants, size, key):
        order = sorted(participants)
        count = len(order) // size
        return [
            tuple(int(node) for node in part) for part in np.array_split(np.array(order), count)
        ]

    monkeypatch.setattr(secure_round, "assign_buckets", assign)


def trimmed(groups, round=1):
    """Plaintext result: scipy's trimmed mean over the groups' mean updates, one at either end."""
    means = [
        np.mean([small_delta(node - 1001, round) for node in group], axis=0) for group in groups
    ]
    return trim_mean(np.stack(means), 1 / len(means) + 1e-9, axis=0)


def groups_of(nodes, count):
    return [part.tolist() for part in np.array_split(np.array(nodes), count)]


ALL = list(range(1001, 1013))


def test_the_aggregate_is_the_trimmed_mean_of_plaintext_bucket_means(in_order):
    strategy = Federation(make_settings()).run()
    assert np.abs(vector_of(strategy) - trimmed(groups_of(ALL, 4))).max() < FIXED_POINT


@pytest.mark.slow
def test_two_rounds_add_up(in_order):
    strategy = Federation(make_settings(rounds=2)).run()
    expected = trimmed(groups_of(ALL, 4), 1) + trimmed(groups_of(ALL, 4), 2)
    assert np.abs(vector_of(strategy) - expected).max() < 2 * FIXED_POINT


def test_metrics_arrive_through_the_masked_sum():
    federation = Federation(make_settings())
    strategy = federation.run()
    assert strategy.history[-1].metrics["reward"] == pytest.approx(0.75, abs=1e-6)


def test_nothing_of_one_node_leaves_in_clear():
    seen = []

    def keep(stage, node, reply):
        seen.append((stage, node, copy.deepcopy(reply.content)))
        return reply

    federation = Federation(make_settings(), tamper=keep)
    federation.run()
    assert {stage for stage, _, _ in seen} == {"train", "share", "mask", "unmask"}
    for stage, node, content in seen:
        records = {name: type(record).__name__ for name, record in content.items()}
        if stage == "train":
            assert records == dict.fromkeys((HEADER, "PublicKeys", "Tag"), "ConfigRecord")
            assert set(content["PublicKeys"]) == {"sharing", "masking", "seed_commitment"}
        if stage == "mask":
            masked = arrays_of(content[MASKED])["vector"]
            release = federation.releases[node - 1001, 1]
            assert masked.shape == release.shape
            # A masked word is uniform: the chance of one so close to its plaintext is 1e-6 a
            # coordinate.
            plain = np.rint(release * 2.0**29).astype(np.int64).astype(np.uint32)
            assert np.abs((masked - plain).view(np.int32)).min() > 100


def test_a_node_lost_before_buckets_are_drawn_costs_only_itself(in_order):
    federation = Federation(
        make_settings(), drop=lambda stage, node: (stage, node) == ("train", 1002)
    )
    strategy = federation.run()
    rest = [node for node in ALL if node != 1002]
    assert np.abs(vector_of(strategy) - trimmed(groups_of(rest, 3))).max() < FIXED_POINT
    assert strategy.state.progress.dropped == 1


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["share", "mask"])
def test_a_node_lost_within_its_bucket_costs_only_itself(in_order, stage):
    federation = Federation(make_settings(), drop=lambda s, node: (s, node) == (stage, 1002))
    strategy = federation.run()
    groups = [[1001, 1003], *groups_of(ALL, 4)[1:]]
    assert np.abs(vector_of(strategy) - trimmed(groups)).max() < FIXED_POINT
    assert strategy.state.progress.dropped == 1


def test_a_node_lost_after_its_vector_arrived_still_counts(in_order):
    federation = Federation(make_settings(), drop=lambda s, node: (s, node) == ("unmask", 1002))
    strategy = federation.run()
    assert np.abs(vector_of(strategy) - trimmed(groups_of(ALL, 4))).max() < FIXED_POINT
    assert strategy.state.progress.dropped == 0


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["share", "mask", "unmask"])
def test_a_bucket_without_a_majority_is_lost_and_the_round_goes_on(in_order, stage):
    federation = Federation(make_settings(), drop=lambda s, node: s == stage and node < 1003)
    strategy = federation.run()
    assert np.abs(vector_of(strategy) - trimmed(groups_of(ALL, 4)[1:])).max() < FIXED_POINT
    assert strategy.state.progress.dropped == 3
    assert strategy.state.progress.skipped == 0


def test_dropouts_at_every_stage_at_once_leave_an_exact_result(in_order):
    lost = {("train", 1012), ("share", 1001), ("mask", 1005), ("unmask", 1009)}
    federation = Federation(make_settings(), drop=lambda s, node: (s, node) in lost)
    strategy = federation.run()
    groups = [[1002, 1003, 1004], [1006, 1007, 1008], [1009, 1010, 1011]]
    assert {tuple(g) for g in groups_of(ALL[:-1], 3)} == {
        (1001, 1002, 1003, 1004),
        (1005, 1006, 1007, 1008),
        (1009, 1010, 1011),
    }
    assert np.abs(vector_of(strategy) - trimmed(groups)).max() < FIXED_POINT
    assert strategy.state.progress.dropped == 3


def agreeing(partition, round):
    """Updates of clients who want nearly the same, so that the right way is plain."""
    return np.full(DIMENSION, 0.1) + small_delta(partition, round) / 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "trim", "survives"),
    [("trimmed_mean", 1, True), ("median", 1, True), ("mean", 0, False)],
)
def test_one_attacker_is_trimmed_and_a_mean_is_not_robust(rule, trim, survives):
    attack = {"simulation.byzantine": 1, "simulation.boost": 10.0}
    settings = make_settings(robust__rule=rule, robust__trim=trim, **attack)
    federation = Federation(settings, delta=agreeing)
    moved = vector_of(federation.run())
    assert (moved > 0.05).all() == survives
    # Without the rule one of twelve turns the model around: (11 x 0.1 - 10 x 0.1) / 12 in honest
    # units.
    assert (moved < 0.05).all() != survives


@pytest.mark.slow
@pytest.mark.parametrize("attack", ["reverse_boost", "constant", "against_last", "zero", "nan"])
def test_every_attack_is_withstood(attack):
    settings = make_settings(rounds=2, simulation__byzantine=1, simulation__attack=attack)
    federation = Federation(settings, delta=agreeing)
    strategy = federation.run()
    assert np.abs(vector_of(strategy) - 0.2).max() < 0.05
    assert strategy.state.progress.dropped == 0, "an attacker is not a node that fails"


@pytest.mark.slow
def test_simulated_droppers_drop_out_and_the_run_goes_on():
    settings = make_settings(rounds=3, simulation__droppers=2, simulation__dropout=1.0)
    strategy = Federation(settings).run()
    assert strategy.state.progress.dropped == 6
    assert strategy.state.progress.skipped == 0


def test_a_deployed_node_knows_no_simulated_faults():
    settings = make_settings(
        simulation__byzantine=6, simulation__droppers=6, simulation__dropout=1.0
    )
    federation = Federation(settings)
    for context in federation.grid.contexts.values():
        del context.node_config["num-partitions"]
    strategy = federation.run()
    assert strategy.state.progress.dropped == 0
    assert np.abs(vector_of(strategy)).max() < 0.2


# Bad replies. Each takes the honest reply and returns what arrives instead.


def replaced(record, name, value):
    def tamper(reply):
        reply.content[record][name] = value
        return reply

    return tamper


def without(record):
    def tamper(reply):
        del reply.content[record]
        return reply

    return tamper


def masked_as(array):
    def tamper(reply):
        reply.content[MASKED] = record_of(vector=array)
        return reply

    return tamper


def same_key(reply):
    keys = reply.content["PublicKeys"]
    keys["sharing"] = keys["masking"]
    return reply


SIZE = DIMENSION + 4
MASKED = "Masked.arrays"
FORGED = Array("uint8", (100,), "numpy.ndarray", b"not an array" + bytes(100))
BAD_REPLIES = {
    "train: no keys": ("train", without("PublicKeys")),
    "train: short keys": ("train", replaced("PublicKeys", "masking", b"short")),
    "train: keys of another type": ("train", replaced("PublicKeys", "masking", "text")),
    "train: low-order keys": ("train", replaced("PublicKeys", "sharing", bytes(32))),
    "train: one key twice": ("train", same_key),
    "train: old round": ("train", replaced(HEADER, "round", 0)),
    "train: foreign run": ("train", replaced(HEADER, "run_id", 2)),
    "train: other version": ("train", replaced(HEADER, "version", "0.0.1")),
    "train: no header": ("train", without(HEADER)),
    "train: error": ("train", lambda reply: Message(Error(2, "ValueError"), reply_to=reply)),
    "train: silence": ("train", lambda reply: []),
    "train: second answer": ("train", lambda reply: [reply, copy.deepcopy(reply)]),
    "share: for strangers": ("share", replaced("Ciphertexts", "by_node[keys]", [1, 2])),
    "share: for too many": ("share", replaced("Ciphertexts", "by_node[keys]", [1001, 1003, 1003])),
    "share: no list": ("share", replaced("Ciphertexts", "by_node[]", b"x")),
    "share: second answer": ("share", lambda reply: [reply, copy.deepcopy(reply)]),
    "mask: wrong shape": ("mask", masked_as(np.zeros(SIZE - 1, np.uint32))),
    "mask: two dimensions": ("mask", masked_as(np.zeros((1, SIZE), np.uint32))),
    "mask: wrong dtype": ("mask", masked_as(np.zeros(SIZE, np.int64))),
    "mask: NaN": ("mask", masked_as(np.full(SIZE, np.nan))),
    "mask: no array": ("mask", replaced(MASKED, PACKED, FORGED)),
    "mask: another record": ("mask", lambda reply: replaced_content(reply, MASKED)),
    "mask: no record": ("mask", without(MASKED)),
    "mask: old round": ("mask", replaced(HEADER, "round", 0)),
    "mask: second answer": ("mask", lambda reply: [reply, copy.deepcopy(reply)]),
    "mask: silence": ("mask", lambda reply: []),
}


def replaced_content(reply, name):
    reply.content[name] = ConfigRecord({"vector": b"x"})
    return reply


def fix_reply_to(tamper):
    """Replies made from replies answer the message that the first one answers."""

    def fixed(reply):
        answered = reply.metadata.reply_to_message_id
        arrived = tamper(reply)
        for message in arrived if isinstance(arrived, list) else [arrived]:
            message.metadata.__dict__["_reply_to_message_id"] = answered
        return arrived

    return fixed


@pytest.mark.slow
@pytest.mark.parametrize("case", BAD_REPLIES)
def test_a_bad_reply_costs_only_its_sender(in_order, case):
    stage, tamper = BAD_REPLIES[case]
    tamper = fix_reply_to(tamper)
    federation = Federation(
        make_settings(),
        tamper=lambda s, node, reply: tamper(reply) if (s, node) == (stage, 1002) else reply,
    )
    strategy = federation.run()
    rest = [node for node in ALL if node != 1002]
    groups = groups_of(rest, 3) if stage == "train" else [[1001, 1003], *groups_of(ALL, 4)[1:]]
    assert np.abs(vector_of(strategy) - trimmed(groups)).max() < FIXED_POINT
    assert strategy.state.progress.dropped == 1
    assert strategy.state.progress.skipped == 0


def test_a_lie_while_unmasking_changes_nothing(in_order):
    def lie(stage, node, reply):
        if (stage, node) == ("unmask", 1002):
            reply.content["Revealed"]["seed_shares[]"] = [bytes(32)] * 3
        return reply

    strategy = Federation(make_settings(), tamper=lie).run()
    assert np.abs(vector_of(strategy) - trimmed(groups_of(ALL, 4))).max() < FIXED_POINT


def test_server_noise_has_the_scale_that_the_trimmed_mean_needs():
    dimension, z = 4000, 2.0
    settings = make_settings(
        privacy__unit="client",
        privacy__noise="server",
        privacy__noise_multiplier=z,
        privacy__max_epsilon=1e6,
    )
    federation = Federation(settings, delta=lambda p, r: np.zeros(dimension))
    moved = vector_of(federation.run(adapter=make_adapter(dimension)))
    # Lemma: C / (s (B - 2k)) for buckets of 3, four of them, one trimmed at either end. 2.2 % is
    # two standard errors.
    expected = z / (3 * (4 - 2)) / np.sqrt(1 - settings.privacy.metrics_share)
    assert moved.std() == pytest.approx(expected, rel=0.06)


def test_clients_noise_is_in_every_release_before_it_is_masked():
    dimension, z = 4000, 2.0
    settings = make_settings(
        privacy__unit="client",
        privacy__noise="client",
        privacy__noise_multiplier=z,
        privacy__max_epsilon=1e6,
    )
    federation = Federation(settings, delta=lambda p, r: np.zeros(dimension))
    federation.run(adapter=make_adapter(dimension))
    for release in federation.releases.values():
        assert release[:dimension].std() == pytest.approx(z, rel=0.06)


@pytest.mark.slow
def test_the_clipping_norm_follows_the_quantile_of_the_round_that_used_it():
    settings = make_settings(rounds=3, privacy__adaptive=True, privacy__adaptive_min=12)
    strategy = Federation(settings).run()
    # Every update is below C, a share of 1 against a quantile of 0.5, in each of three rounds.
    assert strategy.state.progress.clipping_norm == pytest.approx(np.exp(-0.2 * 0.5 * 3), rel=1e-6)


def test_the_clipping_norm_stays_where_too_few_clients_tell_about_theirs():
    strategy = Federation(make_settings(privacy__adaptive=True, privacy__adaptive_min=13)).run()
    assert strategy.state.progress.clipping_norm == 1.0


def test_a_message_reaches_a_node_once_for_each_stage():
    federation = Federation(make_settings())
    federation.run()
    assert len(federation.grid.sent) == len(set(federation.grid.sent)) == 4 * 12


def test_the_largest_release_of_every_member_at_once_does_not_wrap():
    settings = make_settings(privacy__clipping_norm=1.0)
    strategy = Federation(settings, delta=lambda p, r: np.eye(DIMENSION)[0]).run()
    assert vector_of(strategy)[0] == pytest.approx(1.0, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("named", ["reward", ""])
def test_the_server_reads_no_metric_that_clients_keep(named, tmp_path):
    federation = Federation(make_settings(privacy__metrics=named))
    federation.run(FedGRPO(federation.settings, writer=RunWriter(tmp_path)))
    (row,) = [row for row in read_rows(tmp_path) if row.round]
    assert list(row.metrics) == [named] * bool(named)
    assert row.applied
