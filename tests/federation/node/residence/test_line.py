"""What the two processes say to each other: whole, or not at all; and whoever else listens hears
nothing.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.federation.deployment.executor import door as executor_door
from fedgrpo.federation.deployment.flower_internals.runtime import Runtime
from fedgrpo.federation.deployment.flower_internals.tasks import next_task
from fedgrpo.federation.node.clients.watch import Watch
from fedgrpo.federation.node.clock import LateError
from fedgrpo.federation.node.residence.clients import ResidentClients, connected
from fedgrpo.federation.node.residence.line import GoneError, Hello, Here, Line, Prepare, Sized
from fedgrpo.federation.wire.plans import release_plan
from fedgrpo.ground.errors import ModelError, RunError
from fedgrpo.site.declared import FINISH_S, Declared
from tests.federation.federation import DIMENSION, make_adapter, make_settings
from tests.federation.node.residence.housed import House

HERE = Here(7)


def written(value):
    """The bytes of a word."""
    near, far = socket.socketpair()
    with Line(near) as line, far:
        line.say(value)
        return far.recv(1 << 16)


def hear(said, *kinds):
    near, far = socket.socketpair()
    with Line(near) as line:
        with far:
            far.sendall(said)
        return line.hear(*kinds)


def test_what_is_said_is_heard():
    assert hear(written(HERE), Here) == HERE


@pytest.mark.parametrize("value", [HERE, Hello("a" * 64), Sized(1.0, 2.0)])
def test_a_word_that_breaks_off_anywhere_is_the_end_of_who_said_it(value):
    """Also in its head, which has the length."""
    whole = written(value)
    for length in range(len(whole)):
        with pytest.raises(GoneError):
            hear(whole[:length], type(value))


@given(
    st.one_of(
        st.binary(max_size=200),
        st.sampled_from(
            [
                b"Here -1\n{}",
                b"Here 999999999999\n{}",
                b"Here 2\n{}",
                b"Here\n",
                b" 3\nabc",
                b"Here +3\n",
            ]
        ),
        st.binary(max_size=99).map(lambda body: b"Here %d\n%b" % (len(body), body)),
    )
)
def test_nonsense_is_the_end_of_who_says_it(said):
    with pytest.raises(GoneError):
        hear(said, Here)


def test_a_word_out_of_turn_is_the_end_of_who_says_it():
    with pytest.raises(GoneError, match="out of turn"):
        hear(written(HERE), Sized)


# The process of a message, and a test in the place of the model process ---------------------------


@contextlib.contextmanager
def answering(folder, said):
    """At a door, somebody who answers each connection by what ``said`` does with its line."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "door"))
        listening.listen()

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    with Line(listening.accept()[0]) as line, contextlib.suppress(GoneError):
                        said(line)

        thread = threading.Thread(target=serve)
        thread.start()
        yield ResidentClients(folder / "door")
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(20)
        assert not thread.is_alive()


def prepare(clients, answer_after_s=60.0):
    declared = Declared(6, 16, (), answer_after_s, any_weights=False)
    return clients.prepare(make_settings(), {}, make_adapter(), declared)


@pytest.mark.parametrize(("loading_s", "most"), [(0.0, 10.0), (50.0, 60.0)])
def test_an_order_is_sized_as_if_everything_were_to_be_loaded_first(tmp_path, loading_s, most):
    """Else the code of a refusal would tell of a process that has died."""

    def said(line):
        line.hear(Hello)
        line.say(HERE)
        line.hear(Prepare)
        line.say(Sized(10.0, loading_s))

    began = time.monotonic()
    with answering(tmp_path, said) as clients:
        sized = prepare(clients)
    assert most - (time.monotonic() - began) <= sized <= most


@pytest.mark.parametrize(("answers", "sized"), [(False, math.inf), (True, 70.0)])
def test_a_process_that_hangs_or_found_the_work_too_long_before_the_charge_is_ended(
    tmp_path, answers, sized
):
    """In time; and what it has measured does not refuse every order to come."""
    sleeping = subprocess.Popen(["sleep", "600"])

    def said(line):
        line.hear(Hello)
        line.say(Here(sleeping.pid))
        line.hear(Prepare)
        if answers:
            line.say(Sized(70.0, 0.0))
        line.hear(Hello)

    with answering(tmp_path, said) as clients:
        assert prepare(clients, 60.0 if answers else FINISH_S + 0.2) == sized
        assert sleeping.wait(20) == -signal.SIGKILL
        clients.close()


def test_one_that_does_not_greet_ends_no_other_process(tmp_path):
    """Whose number it is cannot be known then, and 0 would be this process's own group."""

    def said(line):
        line.hear(Hello)
        line.hear(Hello)

    with answering(tmp_path, said) as clients:
        assert prepare(clients, FINISH_S + 0.2) == math.inf
        clients.close()


def test_nonsense_before_the_charge_is_a_model_that_cannot_be_loaded(tmp_path):
    with (
        answering(tmp_path, lambda line: line.connection.sendall(b"\xff\x00 12\n")) as clients,
        pytest.raises(ModelError, match="died 2 times"),
    ):
        prepare(clients)


def test_nonsense_after_the_charge_makes_the_contribution_late(tmp_path):
    def said(line):
        line.hear(Hello)
        line.say(HERE)
        line.hear(Prepare)
        line.say(Sized(0.0, 0.0))
        line.connection.recv(1 << 20)
        line.connection.sendall(b"Contributed 3\nabc")

    plan, watch = (
        release_plan(make_settings(), DIMENSION, 1.0),
        Watch(deadline=time.monotonic() + 60),
    )
    with answering(tmp_path, said) as clients:
        prepare(clients)
        with pytest.raises(LateError):
            clients.contribute(make_adapter(), plan, 1, bytes(32), watch)
        clients.close()
    assert watch.mishaps == {"the model process died": 8}


def test_a_process_that_cannot_start_is_not_waited_for(tmp_path, monkeypatch):
    """Nor started for ever: who waits hears that it died."""
    monkeypatch.setattr(executor_door, "MODEL_PROCESS", "fedgrpo.no_such_module")
    with House(tmp_path) as house, pytest.raises(ModelError, match="died 2 times"):
        prepare(house.clients(), 600.0)


LISTENER = """
import os, socket, sys
os.setuid(65534)
door = socket.socket(fileno=int(sys.argv[1]))
door.listen()
print("listens", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_nothing_is_said_to_another_user_who_listens_at_the_door(tmp_path):
    """As where the node's folder was cleaned away: the order's key is the secret of its noise, and
    an order from there would bring a configuration of the other one's own.
    """
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "door"))
        other = subprocess.Popen(
            [sys.executable, "-c", LISTENER, str(door.fileno())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[door.fileno()],
        )  # fmt: skip
        assert other.stdout.readline() == b"listens\n"
        with pytest.raises(RunError, match="another user"):
            connected(tmp_path / "door")
        tasks = Runtime(str(tmp_path / "door"), "", "", "s" * 32).client("SuperExec")
        with pytest.raises(httpx.ConnectError, match="another user"):
            next_task(tasks, "flwr-clientapp")
        other.communicate(timeout=20)


def test_one_s_own_door_is_known_as_such(tmp_path):
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "door"))
        door.listen()
        connected(Path(tmp_path / "door")).close()
