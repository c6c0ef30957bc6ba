"""Whenever the process of a message is killed, the SuperNode answers in its place, and goes on."""

from __future__ import annotations

from datetime import timedelta

import pytest
from flwr.app import ConfigRecord, Message, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.supercore.constant import TaskType
from flwr.supercore.corestate import in_memory_corestate
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supernode.nodestate import NodeStateFactory

from fedgrpo.federation.deployment.flower_internals.crashes import answer_for_killed

RUN, NODE = 7, 1


class Node:
    """A SuperNode's state with one message, and the token of its task."""

    def __init__(self):
        factory = NodeStateFactory(objectstore_factory=ObjectStoreFactory())
        self.state = factory.state()
        assert answer_for_killed(self.state), "this Flower is another one than the pin"
        assert factory.state() is self.state
        known = Metadata(RUN, "", 0, NODE, "", "", 1.0, 600.0, "train")
        self.message = make_message(metadata=known, content=RecordDict())
        self.message.metadata.__dict__["_message_id"] = self.message.object_id
        self.state.store_message(self.message)
        self.task = self.state.create_task(TaskType.CLIENT_APP, RUN, "fab")
        assert self.state.claim_task(self.task)

    def reply(self, *, whole):
        """Answer, with all objects or with some."""
        content = RecordDict({"a": ConfigRecord({"x": 1})})
        answer = Message(content, reply_to=self.message)
        answer.metadata.__dict__["_message_id"] = answer.object_id
        session = self.state.start_session(RUN)
        tree = get_object_tree(answer)
        _, wanted = self.state.store_message_and_object_tree(answer, tree, session)
        objects = get_all_nested_objects(answer)
        for name in wanted if whole else wanted[:1]:
            self.state.object_store.put(name, objects[name].deflate())
        return answer

    def replies(self):
        return self.state.get_messages_legacy(is_reply=True)


@pytest.fixture
def node():
    return Node()


@pytest.fixture
def later(monkeypatch):
    """Lets a minute pass, in which no process says that it is alive."""
    now = in_memory_corestate.now
    return lambda: monkeypatch.setattr(
        in_memory_corestate, "now", lambda: now() + timedelta(seconds=61)
    )


def test_a_process_that_was_killed_before_it_took_its_message_is_answered_for(node, later):
    node.state.activate_task(node.task)
    assert not node.replies()
    later()
    (reply,) = node.replies()
    assert reply.has_error()
    assert reply.metadata.reply_to_message_id == node.message.metadata.message_id


def test_one_that_was_killed_with_its_message_is_answered_for_once(node, later):
    node.state.activate_task(node.task)
    assert node.state.get_messages_legacy(run_ids=[RUN], is_reply=False) == [node.message]
    later()
    assert [reply.has_error() for reply in node.replies()] == [True]
    assert not node.replies()


def test_nobody_waits_for_objects_that_a_killed_process_has_not_brought(node, later):
    node.state.activate_task(node.task)
    reply = node.reply(whole=False)
    assert len(node.replies()) == 1, "it is being sent"
    later()
    assert not node.replies()
    missing = [tree.object_id for tree in get_object_tree(reply).children]
    assert {node.state.object_store.get(each) for each in missing} == {None}


def test_an_answer_that_is_whole_goes_out(node, later):
    node.state.activate_task(node.task)
    reply = node.reply(whole=True)
    later()
    assert [each.metadata.message_id for each in node.replies()] == [reply.metadata.message_id]
    assert node.state.object_store.get(reply.metadata.message_id)


def test_one_that_had_not_begun_is_begun_again(node, later):
    later()
    assert not node.replies()
    assert node.state.claim_task(node.task)


def test_another_flower_is_left_as_it_is(caplog):
    assert not answer_for_killed(object())
    assert caplog.records[-1].code == "flower-unknown"
