"""A model process changes no bit of a release, no line of an account, and dies as one likes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from fedgrpo.federation.node.answers import refusal_of
from fedgrpo.federation.node.clients.interfaces import ElsewhereError
from fedgrpo.federation.node.clients.watch import Watch
from fedgrpo.federation.node.clock import LateError
from fedgrpo.federation.node.residence.clients import connected
from fedgrpo.federation.node.residence.identity import identity_of
from fedgrpo.federation.node.residence.line import GoneError, Hello, Here, Line, Prepare, Sized
from fedgrpo.federation.wire.plans import release_plan
from fedgrpo.site import Refusal, declared_by
from fedgrpo.site.node_folder import folder_beside
from tests.federation.deployment.operated import environment
from tests.federation.federation import make_adapter
from tests.federation.node.residence.housed import (
    POLICY,
    ROWS,
    RUN,
    Asked,
    House,
    killing,
)
from tests.federation.sites import make_site


@pytest.fixture
def house(tmp_path):
    with House(tmp_path) as house:
        yield house


@pytest.fixture
def site(tmp_path):
    return make_site(tmp_path / "site", POLICY, ROWS)


def kept(site):
    return folder_beside(Path(site["prompts"])) / f"release-{RUN}.safetensors"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_releases_are_the_bits_of_a_process_a_message_whatever_dies(house, site):
    """The second round of a process that has answered one, after a kill while it was idle, and
    after one in the middle of a batch.
    """
    node = Asked(site, house.clients)
    node.release(1)
    first = house.process.pid
    released = {2: node.release(2)}
    assert house.process.pid == first, "the model was loaded twice"
    os.kill(first, signal.SIGKILL)
    released[3] = node.release(3)
    note = kept(site).with_name("watch.safetensors")
    note.unlink()
    with killing(house, note.exists):
        released[4] = node.release(4)
    assert node.charged == [1, 2, 3, 4]
    assert node.mishaps == {"the model process died": 1}
    alone = Asked(site)
    for round, release in released.items():
        kept(site).unlink()
        np.testing.assert_array_equal(release, alone.release(round), f"round {round}")
    assert node.charged == [1, 2, 3, 4]


@pytest.mark.slow
def test_it_ends_when_idle_or_for_another_order_and_not_while_one_is_open(tmp_path):
    with House(tmp_path, idle_s=0.5) as house:
        process = None
        for identity in ("a" * 64, "b" * 64):
            with opened(house, identity):
                assert house.process != process, "it holds what the last order was about"
                process = house.process
                with pytest.raises(psutil.TimeoutExpired):
                    process.wait(1)
            if identity == "b" * 64:
                process.wait(60)


@pytest.mark.slow
def test_it_refuses_by_the_same_codes_and_ends_when_nobody_waits_or_it_is_late(house, site):
    node = Asked(site)
    clients, plan = house.clients(), release_plan(node.settings, node.adapter.vector.size, 1.0)
    declared = declared_by(site, node.settings)
    identity = identity_of(node.settings, site, declared)
    with Line(connected(house.path)) as line:
        line.say(Hello(identity))
        line.hear(Here)
        process = house.process
        line.say(Prepare.of(node.settings, site, node.adapter, declared))
    process.wait(60)  # Nobody waits for what it loads.
    with opened(house, identity):
        process = house.process
    began = time.monotonic()
    with pytest.raises(ElsewhereError) as caught:
        clients.prepare(node.settings, site, make_adapter(), declared)
    loaded_s = time.monotonic() - began
    assert refusal_of(caught.value) is Refusal.ADAPTER, "another code than without the process"
    clients.close()
    with Line(connected(house.path)) as line:
        line.say(Hello(identity))
        line.hear(Here)
        line.say(Prepare.of(node.settings, site, node.adapter, declared))
        sized = line.hear(Sized)
    assert sized.loading_s > 0.5 * loaded_s, "it was loaded for the order that was refused"
    began = time.monotonic()
    most = clients.prepare(node.settings, site, node.adapter, declared)
    assert most + time.monotonic() - began >= sized.seconds + sized.loading_s
    assert house.process == process
    process.suspend()
    watch = Watch(deadline=time.monotonic() + 0.2)
    with pytest.raises(LateError):
        clients.contribute(node.adapter, plan, 1, bytes(32), watch)
    process.wait(60)


@pytest.mark.slow
def test_the_process_of_a_message_loads_no_torch():
    script = """
import sys
from fedgrpo.federation.deployment.executor import tasks
from fedgrpo.federation.deployment.executor.apps import RESIDENT, load_app
from flwr.clientapp import ClientApp
tasks._preload("flwr-clientapp", RESIDENT)
load_app(RESIDENT, ClientApp, "door")
import fedgrpo.federation.node.residence.serving
assert not {"torch", "transformers", "opacus"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], env=environment(), check=True)


@contextmanager
def opened(house, identity):
    """A connection to a process that has loaded this, or nothing yet."""
    while True:
        with Line(connected(house.path)) as line, suppress(GoneError):
            line.say(Hello(identity))
            yield line.hear(Here)
            return
