"""What a node refuses, whatever the server asks, and what leaves it when something fails."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from flwr.common.serde import context_from_proto, context_to_proto

from fedgrpo.federation.node.gate import source_of
from fedgrpo.federation.protocols.buckets.node import MASKS
from fedgrpo.federation.state.memory import RELEASE
from fedgrpo.federation.state.node_store import Ask, NodeStore
from fedgrpo.federation.wire.codec import HEADER, Header, decode, encode
from fedgrpo.federation.wire.messages import (
    MASK,
    SHARE,
    TRAIN,
    UNMASK,
    Ciphertexts,
    Tag,
    TrainOrder,
    read_release,
)
from fedgrpo.federation.wire.plans import order_digest, plan_hash, release_plan
from fedgrpo.ground.errors import ProtocolError, RewardError
from fedgrpo.model.adapter import AdapterState
from fedgrpo.privacy.release import zero_release
from fedgrpo.secure.masking import PublicKeys, Roster
from fedgrpo.site import Refusal, declared_by
from tests.federation.federation import (
    DIMENSION,
    LAYOUT,
    make_adapter,
    make_settings,
)
from tests.federation.kills import KilledError
from tests.federation.node.one_node import Node, unmask
from tests.federation.packed import with_array
from tests.federation.sites import code_of

ARRAYS = "TrainOrder.arrays"


def changed(content, record, name, value):
    if record == ARRAYS:
        content[record] = with_array(content[record], name, value)
    else:
        content[record][name] = value
    return content


def private(unit):
    """Settings of a private run whose releases the server is shown."""
    return make_settings(
        rounds=9,
        privacy__unit=unit,
        privacy__max_epsilon=1e6,
        aggregation__protocol="plain",
    )


def test_only_public_keys_and_a_tag_leave_after_training():
    reply = Node().ask(TRAIN, Node().order())
    assert isinstance(decode(PublicKeys, reply.content), PublicKeys)
    assert set(reply.content) == {HEADER, "PublicKeys", "Tag"}
    assert set(reply.content["Tag"]) == {"name", "commitment"}


def test_a_round_is_answered_once():
    node = Node()
    node.trained()
    assert node.refusal(TRAIN, node.order(1)) is Refusal.OUT_OF_TURN


def test_an_old_round_is_refused():
    node = Node()
    node.trained(5)
    assert node.refusal(TRAIN, node.order(4)) is Refusal.OUT_OF_TURN


def test_a_round_beyond_those_that_epsilon_was_stated_for_is_refused():
    node = Node(make_settings(rounds=5))
    node.trained(5)
    assert node.refusal(TRAIN, node.order(6)) is Refusal.OUT_OF_TURN
    assert node.refusal(TRAIN, node.order(0)) is Refusal.OUT_OF_TURN


def test_a_round_that_failed_cannot_be_asked_for_again():
    asked = []

    def client(settings, node_config):
        asked.append(1)
        raise RewardError("the reward function returned None")

    node = Node(client=client)
    assert node.refusal(TRAIN, node.order(1)) is Refusal.FAILED
    assert node.refusal(TRAIN, node.order(1)) is Refusal.OUT_OF_TURN
    assert len(asked) == 1


def test_a_foreign_run_is_refused():
    node = Node()
    assert node.refusal(TRAIN, node.order(run=7)) is Refusal.OUT_OF_TURN
    node.trained()
    foreign = changed(unmask([1001, 1002]), HEADER, "run_id", 7)
    assert node.refusal(UNMASK, foreign) is Refusal.OUT_OF_TURN


@pytest.mark.parametrize(
    ("record", "name", "value", "code"),
    [
        (HEADER, "protocol", 99, Refusal.VERSION),
        (HEADER, "version", "0.0.1", Refusal.VERSION),
        (HEADER, "round", "one", Refusal.MESSAGE),
        (HEADER, "round", 2, Refusal.OUT_OF_TURN),
        ("TrainOrder", "fingerprint", "f" * 64, Refusal.SETTINGS),
        ("TrainOrder", "clipping_norm", 2.0, Refusal.MESSAGE),
        ("TrainOrder", "clipping_norm", float("nan"), Refusal.BOUNDS),
        ("TrainOrder", "clipping_norm", 1, Refusal.MESSAGE),
        (ARRAYS, "adapter.vector", np.zeros(6), Refusal.MESSAGE),
        (ARRAYS, "adapter.vector", np.full(6, np.nan, np.float32), Refusal.BOUNDS),
        (ARRAYS, "adapter.vector", np.zeros((2, 3), np.float32), Refusal.BOUNDS),
        (ARRAYS, "adapter.vector", np.full(6, 2e6, np.float32), Refusal.BOUNDS),
        (ARRAYS, "adapter.vector", np.zeros(0, np.float32), Refusal.BOUNDS),
        ("TrainOrder", "adapter.layout", "c" * 63, Refusal.MESSAGE),
        (ARRAYS, "adapter.basis[]0", np.full((3, 3), np.nan, np.float32), Refusal.BOUNDS),
        (ARRAYS, "adapter.basis[]0", np.full((3, 3), -np.inf, np.float32), Refusal.BOUNDS),
        (ARRAYS, "adapter.basis[]0", np.full((3, 3), 2e6, np.float32), Refusal.BOUNDS),
        (ARRAYS, "adapter.basis[]0", np.eye(3), Refusal.BOUNDS),
        (ARRAYS, "adapter.basis[]0", np.zeros(3, np.complex64), Refusal.BOUNDS),
    ],
)
def test_an_order_that_does_not_fit_is_refused_before_anything_is_computed(
    record, name, value, code
):
    node = Node()
    assert node.refusal(TRAIN, changed(node.order(), record, name, value)) is code
    assert node.releases == {}


def test_an_adapter_of_another_layout_is_refused():
    node = Node()
    foreign = AdapterState(make_adapter().vector, make_adapter().basis, "b" * 64)
    assert node.refusal(TRAIN, node.order(adapter=foreign)) is Refusal.FAILED


@pytest.mark.parametrize(
    ("basis", "layout"),
    [
        ({"A": 2 * np.eye(3, dtype=np.float32)}, LAYOUT),
        ({"A": np.eye(3, 4, dtype=np.float32)}, LAYOUT),
        ({}, LAYOUT),
        ({"A": np.eye(3, dtype=np.float32)}, "b" * 64),
    ],
)
def test_the_frozen_basis_cannot_change_within_a_run(basis, layout):
    node = Node()
    node.trained(1)
    other = AdapterState(make_adapter().vector, basis, layout)
    assert node.refusal(TRAIN, node.order(2, other)) is Refusal.ADAPTER
    assert (0, 2) not in node.releases


@pytest.mark.parametrize("minimum", [3, 4])
def test_a_roster_below_the_nodes_minimum_is_refused(minimum):
    node = Node(minimum_bucket=minimum)
    roster = node.trained()
    members = roster.members[: minimum - 1]
    small = replace(roster, members=members, keys=roster.keys[: minimum - 1])
    assert node.refusal(SHARE, encode(Header(1, 1), small)) is Refusal.MESSAGE


MOVED = AdapterState(np.full(6, 0.5, np.float32), make_adapter().basis, LAYOUT)
TURNED = AdapterState(make_adapter().vector, {"A": np.eye(3, dtype=np.float32)[::-1]}, LAYOUT)


@pytest.mark.parametrize("other", [MOVED, TURNED], ids=["values", "basis"])
@pytest.mark.parametrize("told", ["the others'", "its own"])
def test_nothing_masked_leaves_a_bucket_whose_members_got_different_adapters(other, told):
    node = Node()
    keys = {}
    for member, adapter in zip(node.grid.online, [other, None, None], strict=True):
        keys[member] = decode(PublicKeys, node.ask(TRAIN, node.order(1, adapter), member).content)
    digests = [order_digest(node.settings, adapter, 1.0) for adapter in (other, make_adapter())]
    roster = Roster(1, 1, 0, tuple(keys), tuple(keys.values()), 2, digests[1])
    for_first = replace(roster, order=digests[told == "the others'"])
    replies = {m: node.ask(SHARE, encode(Header(1, 1), roster), m) for m in (1002, 1003)}
    replies[1001] = node.ask(SHARE, encode(Header(1, 1), for_first), 1001)
    code = Refusal.MESSAGE if told == "the others'" else None
    assert code_of(replies[1001]) is code
    dealt = {
        m: decode(Ciphertexts, reply.content).by_node
        for m, reply in replies.items()
        if code_of(reply) is None
    }
    for member in sorted(keys):
        peers = {peer: sent[member] for peer, sent in dealt.items() if peer != member}
        content = encode(Header(1, 1), Ciphertexts(peers))
        if told == "its own" or member == 1001:
            assert node.refusal(MASK, content, member) is Refusal.MESSAGE
        else:  # The two who got one adapter may be summed without the third.
            assert code_of(node.ask(MASK, content, member)) is None


def test_what_all_of_a_bucket_compute_is_told_apart_by_adapter_norm_and_settings():
    settings, adapter = make_settings(rounds=9), make_adapter()
    digests = {
        order_digest(settings, adapter, 1.0),
        order_digest(settings, MOVED, 1.0),
        order_digest(settings, TURNED, 1.0),
        order_digest(settings, replace(adapter, layout="b" * 64), 1.0),
        order_digest(settings, adapter, np.nextafter(1.0, 2)),
        order_digest(make_settings(rounds=8), adapter, 1.0),
    }
    assert len(digests) == 6
    assert {len(digest) for digest in digests} == {32}


def test_a_clipping_norm_adapts_within_a_factor_of_ten_and_no_further():
    settings = make_settings(
        privacy__unit="client", privacy__adaptive=True, privacy__noise_multiplier=9.0
    )
    for norm in (0.1, 1.0, 10.0):
        assert release_plan(settings, 6, norm).clipping_norm == norm
    for norm in (0.0999, 10.001, 0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ProtocolError, match="not within a factor of 10 of the agreed 1"):
            release_plan(settings, 6, norm)


def test_a_roster_below_the_runs_bucket_size_is_refused():
    settings = make_settings(secure__bucket_size=4, federation__min_clients=12)
    node = Node(settings)
    assert node.refusal(SHARE, encode(Header(1, 1), node.trained())) is Refusal.MESSAGE


def test_a_node_named_as_alive_and_dropped_is_refused_and_the_secrets_are_gone():
    node = Node()
    node.masked()
    both = unmask([1001, 1002, 1003], dropped=[1002])
    assert node.refusal(UNMASK, both) is Refusal.MESSAGE
    assert node.refusal(UNMASK, unmask([1001, 1002, 1003])) is Refusal.MESSAGE


def test_unmasking_is_answered_once():
    node = Node()
    node.masked()
    everyone = unmask([1001, 1002, 1003])
    assert node.ask(UNMASK, everyone).has_content()
    assert node.refusal(UNMASK, unmask([1001, 1002], dropped=[1003])) is Refusal.MESSAGE


def test_masking_is_answered_once_and_the_release_is_gone():
    node = Node()
    node.masked()
    assert not [name for name in node.state if name.startswith(RELEASE)]
    again = encode(Header(1, 1), Ciphertexts({1002: b"", 1003: b""}))
    assert node.refusal(MASK, again) is Refusal.MESSAGE


def test_a_refused_request_leaves_no_release_behind():
    node = Node()
    roster = node.trained()
    node.ask(SHARE, encode(Header(1, 1), roster))
    forged = encode(Header(1, 1), Ciphertexts({1002: bytes(92), 1003: bytes(92)}))
    assert node.refusal(MASK, forged) is Refusal.MESSAGE
    assert not [name for name in node.state if name.startswith(RELEASE)]


@pytest.mark.parametrize("kind", [SHARE, MASK, UNMASK])
def test_a_stage_without_its_round_is_refused(kind):
    contents = {
        SHARE: encode(Header(1, 1), Roster(1, 1, 0, (), (), 2, bytes(32))),
        MASK: encode(Header(1, 1), Ciphertexts({})),
        UNMASK: unmask([1001]),
    }
    node = Node()
    assert node.refusal(kind, contents[kind]) is Refusal.OUT_OF_TURN
    node.masked(1)
    node.trained(2)
    assert node.refusal(kind, contents[kind]) is Refusal.OUT_OF_TURN


def test_a_new_round_wipes_what_the_last_one_left():
    node = Node()
    first = node.trained(1)
    before = node.state[MASKS]["client"]
    second = node.trained(2)
    assert node.state[MASKS]["client"] != before
    assert not {key for keys in first.keys for key in (keys.sharing, keys.masking)} & {
        key for keys in second.keys for key in (keys.sharing, keys.masking)
    }


SECRET = "the patient's name is"


def foreign_failure(settings, node_config):
    raise KeyError(SECRET)


def nested_failure(settings, node_config):
    try:
        raise ValueError(SECRET)
    except ValueError as cause:
        raise RewardError("reward function my.module:score raised ValueError") from cause


def exiting_failure(settings, node_config):
    raise SystemExit(SECRET)


class ShoutingError(Exception):
    def __str__(self):
        return SECRET


def shouting_failure(settings, node_config):
    raise ShoutingError


FAILURES = [foreign_failure, nested_failure, shouting_failure, exiting_failure]


@pytest.mark.parametrize("fail", FAILURES)
def test_a_failure_without_a_unit_is_one_code_and_the_nodes_own_log_tells_all(fail, caplog):
    node = Node(client=fail)
    with caplog.at_level(logging.WARNING):
        assert node.refusal(TRAIN, node.order()) is Refusal.FAILED
    assert "Traceback" in caplog.text, "the node's own log tells its owner everything"


NONSENSE = {
    "shape": np.zeros(3),
    "dtype": np.zeros(10, np.float32),
    "NaN": np.full(10, np.nan),
    "infinite": np.full(10, np.inf),
}


def releasing(release):
    """A factory of clients that release just this."""

    class Nonsense:
        def contribute(self, *_):
            return release

    return lambda settings, config: Nonsense()


@pytest.mark.parametrize("release", NONSENSE.values(), ids=NONSENSE)
def test_a_bad_release_without_a_unit_is_the_same_code(release):
    node = Node(client=releasing(release))
    assert node.refusal(TRAIN, node.order()) is Refusal.FAILED
    assert not [name for name in node.state if name.startswith(RELEASE)]


FACTORIES = [*FAILURES, *map(releasing, NONSENSE.values())]


@pytest.mark.parametrize("unit", ["prompt", "client"])
@pytest.mark.parametrize("factory", FACTORIES)
def test_under_a_unit_a_failure_is_zero_with_the_full_noise(unit, factory):
    """Bit for bit what a client releases that contributes nothing, under the same key."""
    settings = private(unit)
    node = Node(settings, client=factory)
    reply = node.ask(TRAIN, node.order())
    assert code_of(reply) is None
    plan = release_plan(settings, DIMENSION, 1.0)
    release = read_release(reply.content, plan.size).astype(np.float64)
    context = node.grid.contexts[1001]
    store = NodeStore.of(context, settings)
    order = decode(TrainOrder, node.order())
    source = source_of(context.node_config, declared_by(context.node_config, settings))
    ask = Ask("ab" * 16, 1, plan_hash(settings, order, plan, source))
    assert store.tag(ask, release) == decode(Tag, reply.content)
    np.testing.assert_array_equal(release, zero_release(plan, store.key(ask)))


@pytest.mark.parametrize("unit", ["prompt", "client"])
def test_zero_releases_have_the_noise_of_any_other(unit):
    settings = private(unit)
    plan = release_plan(settings, 4000, 1.0)
    releases = np.array([zero_release(plan, bytes([key]) * 32) for key in range(20)])
    expected = plan.noise_std / (plan.expected_prompts if unit == "prompt" else 1)
    # The metrics count as one half, so the mean is zero; 5 standard errors of a standard deviation.
    assert releases.std() == pytest.approx(expected, rel=5 / np.sqrt(2 * releases.size))
    assert abs(releases.mean()) < 5 * expected / np.sqrt(releases.size)


def test_a_killed_process_is_no_failure():
    """Nothing is made up in the place of what a killed process would have sent."""

    def killed(settings, node_config):
        raise KilledError

    node = Node(private("client"), client=killed)
    with pytest.raises(KilledError):
        node.ask(TRAIN, node.order())


def test_a_dropout_that_the_scenario_asks_for_is_a_code():
    settings = make_settings(simulation__droppers=3, simulation__dropout=1.0, simulation__clients=3)
    node = Node(settings)
    assert node.refusal(TRAIN, node.order()) is Refusal.DROPPED_OUT
    assert node.releases == {}


def test_bad_settings_are_a_code():
    node = Node()
    node.grid.contexts[1001].run_config["rounds"] = 0
    for kind in (TRAIN, SHARE):
        assert node.refusal(kind, node.order()) is Refusal.SETTINGS


@pytest.mark.slow
def test_the_masking_handlers_and_the_package_load_no_torch():
    script = """
import sys
from dataclasses import replace
from fedgrpo.federation import FedGRPO, LocalGrid, make_client_app, make_server_app
import fedgrpo.federation as room
assert "torch" not in sys.modules, [m for m in sys.modules if "torch" in m][:3]
assert "opacus" not in sys.modules
try:
    room.nothing
except AttributeError:
    pass
else:
    raise SystemExit("a name that is not there was found")
from fedgrpo.federation.wire.messages import UNMASK
from tests.federation.packed import with_array
from tests.federation.node.one_node import Node, unmask
node = Node()
node.masked()
assert node.ask(UNMASK, unmask([1001, 1002, 1003])).has_content()
assert "torch" not in sys.modules
"""
    subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_a_state_that_goes_through_bytes_before_each_message_still_serves():
    """A deployed node gets its context anew for every message, in a fresh process."""
    node = Node()
    plain = node.grid.push_messages

    def push(orders):
        for number, context in node.grid.contexts.items():
            node.grid.contexts[number] = context_from_proto(context_to_proto(context))
        return plain(orders)

    node.grid.push_messages = push
    node.masked()
    assert node.ask(UNMASK, unmask([1001, 1002, 1003])).has_content()
