"""On other systems than Linux: what needs it is left out or refused in a sentence, never met as an
error of Python's.
"""

import os
import resource
import socket
import subprocess
import sys

import pytest

from fedgrpo.ground import machine
from fedgrpo.ground.errors import RewardError
from fedgrpo.grpo.isolated.apart import can_fork
from fedgrpo.model import memory
from fedgrpo.rewards.apart.limits import keep_children, leave_network
from fedgrpo.rewards.sandboxed.isolated import isolated_mixture
from fedgrpo.rewards.sandboxed.sandbox import sandbox_available
from fedgrpo.settings import RewardSettings


@pytest.fixture
def macos(monkeypatch: pytest.MonkeyPatch) -> None:
    """As macOS looks to Python: without /proc and without what Linux alone has."""
    monkeypatch.setattr(sys, "platform", "darwin")
    for gone in ("sched_getaffinity", "memfd_create"):
        monkeypatch.delattr(os, gone)
    for gone in ("SO_PEERCRED", "SOCK_SEQPACKET"):
        monkeypatch.delattr(socket, gone)
    monkeypatch.setattr(machine, "_meminfo", lambda _: machine._UNKNOWN)
    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: pytest.fail("a call of Linux's C library"))
    sandbox_available.cache_clear()


@pytest.mark.usefixtures("macos")
def test_what_the_machine_gives_is_known_without_linux() -> None:
    assert machine.usable_cores() == os.cpu_count()
    assert machine.free_memory() == machine.whole_memory() > 0
    with socket.socketpair()[0] as mine:
        assert machine.is_own(mine)
    assert memory.peak_memory() == resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert not can_fork()
    keep_children()


@pytest.mark.usefixtures("macos")
def test_a_reward_that_must_judge_confined_is_refused_without_linux_with_what_would_do() -> None:
    with pytest.raises(RewardError, match="this machine's kernel cannot promise") as caught:
        isolated_mixture(RewardSettings(functions=("mine.py:f",)), ())
    assert "use Linux" in caught.value.cure
    assert "stateless_rewards" in caught.value.cure


@pytest.mark.usefixtures("macos")
def test_a_reward_is_not_taken_off_the_network_without_linux_and_that_is_said() -> None:
    with pytest.raises(RewardError, match=r"reward\.network = false") as caught:
        leave_network()
    assert "set reward.network = true" in caught.value.cure


@pytest.mark.slow
def test_without_fcntl_one_sentence_tells_what_is_needed() -> None:
    """From Python; the command is tried in tests/cli/test_outcome.py."""
    hidden = "import sys; sys.modules['fcntl'] = None; from fedgrpo import simulate"
    command = [sys.executable, "-c", hidden]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "fedgrpo needs Linux or macOS" in last
    assert "ModuleNotFoundError" not in done.stderr
