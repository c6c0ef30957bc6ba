"""One round trip ends in time, and each reply belongs to the node that was asked."""

from __future__ import annotations

import time

import pytest
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp

from fedgrpo.federation import LocalGrid
from fedgrpo.federation.wire.exchange import (
    SILENT,
    TWICE,
    UNSENT,
    Collection,
    as_it_is,
    round_trip,
    wait_for_nodes,
)
from fedgrpo.ground.errors import CohortError


def echo_grid(nodes=4, **options):
    app = ClientApp()

    @app.query("echo")
    def echo(message, context):
        return Message(RecordDict(), reply_to=message)

    return LocalGrid(app, nodes, **options)


def ask(grid, timeout=0.2, **options):
    orders = [
        Message(RecordDict(), dst_node_id=n, message_type="query.echo") for n in grid.contexts
    ]
    return round_trip(grid, orders, timeout, Collection(as_it_is, poll_s=0.01, **options))


def test_every_node_that_replies_is_heard():
    replies = ask(echo_grid())
    assert list(replies.messages) == [1001, 1002, 1003, 1004]
    assert replies.failures == {}


def test_a_silent_node_costs_no_more_than_the_time_limit():
    grid = echo_grid(tamper=lambda stage, node, reply: [] if node == 1002 else reply)
    begun = time.monotonic()
    replies = ask(grid, timeout=0.2)
    assert 0.2 <= time.monotonic() - begun < 1
    assert replies.failures == {1002: SILENT}
    assert len(replies.messages) == 3


def test_nobody_waits_for_a_silent_node_where_the_others_are_enough():
    grid = echo_grid(tamper=lambda stage, node, reply: [] if node == 1002 else reply)
    begun = time.monotonic()
    replies = ask(grid, timeout=60, enough=lambda so_far: set(so_far.failures) == {1002})
    assert time.monotonic() - begun < 10
    assert replies.failures == {1002: SILENT}
    assert len(replies.messages) == 3


def test_an_error_of_the_superlink_is_matched_by_the_message_not_by_its_source():
    replies = ask(echo_grid(drop=lambda stage, node: node == 1003))
    assert replies.messages[1003].has_error()
    assert replies.messages[1003].metadata.src_node_id == 1
    assert replies.failures == {}


def test_a_node_cannot_answer_for_another():
    def forge(stage, node, reply):
        if node == 1001:
            reply.metadata.__dict__["_src_node_id"] = 1002
        return reply

    replies = ask(echo_grid(tamper=forge))
    assert list(replies.messages) == [1001, 1002, 1003, 1004]


def test_a_second_answer_spoils_the_first():
    replies = ask(
        echo_grid(tamper=lambda s, node, reply: [reply, reply] if node == 1004 else reply)
    )
    assert replies.failures == {1004: TWICE}
    assert 1004 not in replies.messages


def test_an_answer_to_nothing_is_ignored():
    def stray(stage, node, reply):
        other = Message(RecordDict(), reply_to=reply)
        return [other, reply] if node == 1001 else reply

    replies = ask(echo_grid(tamper=stray))
    assert len(replies.messages) == 4


@pytest.mark.parametrize(
    ("ids", "unsent"), [(["a", None, "c", "d"], {1002}), ([], {1001, 1002, 1003, 1004})]
)
def test_a_message_that_the_superlink_refuses_is_a_failure_of_its_node(ids, unsent, monkeypatch):
    grid = echo_grid()
    monkeypatch.setattr(grid, "push_messages", lambda messages: ids)
    monkeypatch.setattr(grid, "pull_messages", lambda ids: [])
    failures = ask(grid, timeout=0.0).failures
    assert {node for node, why in failures.items() if why == UNSENT} == unsent
    assert set(failures) == {1001, 1002, 1003, 1004}


def test_an_app_that_raises_answers_with_flowers_error():
    def fail(message, context):
        raise OSError("disk")

    app = ClientApp()
    app.query("echo")(fail)
    replies = ask(LocalGrid(app, 4))
    assert {reply.error.code for reply in replies.messages.values()} == {2}


def test_nobody_asked_means_nothing_awaited():
    assert round_trip(echo_grid(), [], 60, Collection(as_it_is)).messages == {}


def test_waiting_ends_with_the_numbers():
    with pytest.raises(CohortError, match=r"4 clients are online after 0\.05 s, 5 are needed"):
        wait_for_nodes(echo_grid(), 5, 0.05, poll_s=0.01)


def test_all_nodes_online_are_returned_not_only_the_needed():
    assert wait_for_nodes(echo_grid(), 2, 0.0) == (1001, 1002, 1003, 1004)
