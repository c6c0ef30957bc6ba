"""What Flower sends of a message is three objects, and nothing of it is lost or believed."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import (
    pull_and_inflate_object_from_tree,
    pull_objects,
)
from flwr.supercore.task_identity import TaskIdentity

from fedgrpo.federation.deployment.flower_internals import objects
from fedgrpo.federation.deployment.flower_internals.packing import (
    MOST_BYTES,
    pack_all,
    packed,
    unpacked,
)
from fedgrpo.federation.deployment.gateway.paths import FLEET


@pytest.fixture(autouse=True)
def a_task(monkeypatch):
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def message(values=4):
    content = RecordDict(
        {
            "arrays": ArrayRecord({"a": Array(np.arange(values, dtype=np.float32))}),
            "facts": ConfigRecord({"round": 3, "key": b"\x00\xff", "names": ["a", "b"], "x": 0.5}),
            "figures": MetricRecord({"loss": 1.5}),
        }
    )
    return Message(content, 7, "train", ttl=60.0)


def test_a_packed_message_is_three_objects_and_unpacks_to_what_it_was():
    sent = message()
    travels = packed(sent)
    assert len(get_all_nested_objects(travels)) == 3 < len(get_all_nested_objects(sent))
    assert travels.metadata is sent.metadata
    assert unpacked(travels).content == sent.content == message().content
    assert unpacked(sent).content == sent.content


def test_what_is_large_is_cut_by_flower_and_fits_through_the_gateway():
    large = message(MOST_BYTES)
    assert packed(large) is large
    assert min(FLEET.values()) > 0
    assert FLEET[b"/v1/fleet/push-object"] > 2 * MOST_BYTES


@pytest.mark.parametrize("forged", [b"\xff", b"text", 3, "text", b""])
def test_what_is_forged_is_no_message_of_ours(forged):
    content = RecordDict({"fedgrpo.whole": ConfigRecord({"bytes": forged})})
    found = unpacked(Message(content, 7, "train", ttl=60.0)).content
    assert found == (RecordDict() if forged == b"" else content)


def test_a_grid_packs_what_it_sends_and_unpacks_what_comes():
    class Grid:
        def push_messages(self, messages):
            self.sent = list(messages)
            return ["1"]

        def pull_messages(self, ids):
            return self.sent

    grid, own = Grid(), message()
    pack_all(grid)
    assert grid.push_messages([own]) == ["1"]
    assert len(get_all_nested_objects(grid.sent[0])) == 3
    assert own.content == message().content, "the sender's own message was changed"
    assert grid.pull_messages(["1"])[0].content == own.content


@pytest.mark.parametrize("pulling", [pull_objects, pull_and_inflate_object_from_tree])
def test_objects_on_their_way_are_looked_for_soon_and_not_for_ever(monkeypatch, pulling):
    for function in (pull_objects, pull_and_inflate_object_from_tree):
        monkeypatch.setitem(function.__kwdefaults__, "initial_backoff", 1)
        monkeypatch.setitem(function.__kwdefaults__, "max_time", 7200)
    assert objects.see_soon(), "this Flower is another one than the pin"
    assert pulling.__kwdefaults__["initial_backoff"] == objects.SOON_S < 0.1
    assert pulling.__kwdefaults__["max_time"] == 7200
    assert objects.see_soon(give_up=True)
    assert pulling.__kwdefaults__["max_time"] == objects.GIVE_UP_S
    monkeypatch.delitem(pulling.__kwdefaults__, "initial_backoff")
    assert not objects.see_soon()
