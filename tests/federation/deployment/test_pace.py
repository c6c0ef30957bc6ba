"""A site looks often while a round goes on, and seldom while nothing runs."""

from __future__ import annotations

import time
from types import ModuleType

import pytest
from flwr.supernode import start_client_internal

from fedgrpo.federation.deployment.flower_internals import servers
from fedgrpo.federation.deployment.flower_internals.pace import LINGER_S, MARK_S, Mark, Pace
from fedgrpo.federation.deployment.flower_internals.servers import quicken


@pytest.fixture
def slept(monkeypatch):
    """Pauses, in which a test's time passes and no other."""
    pauses, now = [], [1000.0]

    def sleep(seconds):
        pauses.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return pauses


@pytest.fixture
def loop(monkeypatch):
    """Flower's own loop, which is what it was when the test is over."""
    monkeypatch.setattr(start_client_internal, "time", time)
    return start_client_internal


def test_a_supernode_is_quick_from_a_rounds_first_message_until_a_while_after_the_last(loop, slept):
    assert quicken(loop, Pace(3.0, 0.2), Mark(None)), "this Flower is another one than the pin"
    for pause in (3, 3, 0.5, 0.5, *[3] * 200):
        loop.time.sleep(pause)
    assert slept[:4] == [3.0, 3.0, 0.05, 0.05]
    quick = slept[4:].index(3.0)
    assert set(slept[4 : 4 + quick]) == {0.2}
    assert quick * 0.2 == pytest.approx(LINGER_S, abs=0.5)
    assert set(slept[4 + quick :]) == {3.0}


def test_a_file_says_when_the_server_answered_last_and_not_when_a_message_was_here(
    loop, slept, tmp_path
):
    mark = tmp_path / "contact"
    assert quicken(loop, Pace(3.0, 0.2), Mark(mark))
    loop.time.sleep(0.5)
    assert not mark.exists()
    loop.time.sleep(3)
    assert mark.stat().st_mode & 0o077 == 0
    mark.unlink()
    loop.time.sleep(3)
    assert not mark.exists(), "a mark costs a write, and so is made now and then"
    for _ in range(int(MARK_S / 0.2) + 1):
        loop.time.sleep(3)
    assert mark.exists()


def test_a_mark_that_cannot_be_made_fails_nothing(tmp_path):
    Mark(tmp_path / "nowhere" / "contact").now()


def test_a_loop_that_pauses_in_another_way_is_left_as_it_is(monkeypatch, caplog):
    other = ModuleType("other")
    monkeypatch.setattr(servers.inspect, "getsource", lambda _: "time.sleep(4)")
    monkeypatch.setattr(
        "fedgrpo.federation.deployment.flower_internals.servers.LOG.propagate", True
    )
    assert not quicken(other, Pace(3.0, 0.2), Mark(None))
    assert not hasattr(other, "time")
    assert "rounds take longer" in caplog.text


def test_the_executor_keeps_such_a_pace_too(slept):
    pace = Pace(0.5, 0.05)
    assert pace.wait_s == 0.5
    pace.came()
    assert pace.wait_s == 0.05
    time.sleep(LINGER_S + 1)
    assert pace.wait_s == 0.5
