"""Ways around the sandbox that begin when a reward's module is imported; each judges "secret"."""

from __future__ import annotations

import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from fedgrpo.ground.errors import RewardError
from fedgrpo.rewards.sandboxed import template
from fedgrpo.rewards.sandboxed.client import RewardWorker
from fedgrpo.rewards.sandboxed.isolated import IsolatedMixture, isolated_mixture
from fedgrpo.rewards.sandboxed.sandbox import WorkerLimits, sandbox_available
from fedgrpo.rewards.sandboxed.worker import Template
from fedgrpo.settings import RewardSettings

pytestmark = pytest.mark.skipif(not sandbox_available(), reason="needs Linux's seccomp filters")

PROMPTS = ("first", "secret", "third", "fourth")
FUNCTION = """
def score(prompts, completions, **_):
    return [float(seen())] * len(completions)
"""


def made(folder: Path, source: str) -> IsolatedMixture:
    (folder / "r.py").write_text(source)
    return isolated_mixture(RewardSettings(functions=(f"{folder / 'r.py'}:score",)))


def judged(mixture: IsolatedMixture) -> list[float]:
    found = [mixture([prompt], ["a"], {}).total.item() for prompt in PROMPTS]
    mixture.close()
    return found


AT_FORK = """
import os
LOOT = {loot!r}
hooks, seen_there = 0, lambda: hooks
def hook():
    global hooks
    hooks += 1
    os.mkdir(LOOT)
os.register_at_fork(before=hook, after_in_child=hook, after_in_parent=hook)
seen = lambda: hooks
"""


@pytest.mark.slow
def test_hooks_at_a_fork_do_not_run(tmp_path: Path) -> None:
    mixture = made(tmp_path, AT_FORK.format(loot=str(tmp_path / "loot")) + FUNCTION)
    assert judged(mixture) == [0.0] * 4
    assert not (tmp_path / "loot").exists()


FIFO = """
import os
PATH = {path!r}
os.mkfifo(PATH)
kept = os.open(PATH, os.O_RDWR | os.O_NONBLOCK)
os.write(kept, bytes(4000))
def score(prompts, completions, **_):
    for which in (lambda: os.open(PATH, os.O_RDONLY | os.O_NONBLOCK), lambda: kept):
        try:
            return [float(len(os.read(which(), 1000)))]
        except OSError:
            pass
    return [0.0]
"""


@pytest.mark.slow
def test_a_pipe_in_the_file_system_cannot_be_opened(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    mixture = made(tmp_path, FIFO.format(path=str(path)))
    # Somebody else keeps it open, with something in it.
    keeper = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    os.write(keeper, bytes(4000))
    assert judged(mixture) == [0.0] * 4
    assert len(os.read(keeper, 8000)) == 4000
    os.close(keeper)


READS = """
def seen():
    with open({path!r}) as file:
        return len(file.read())
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prompts.jsonl", "node.secret"])
def test_files_beside_the_prompts_cannot_be_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("secret")
    mixture = made(tmp_path, READS.format(path=str(path)) + FUNCTION)
    with pytest.raises(RewardError, match="raised PermissionError") as caught:
        mixture(["p"], ["a"], {})
    assert "no file can be opened once a group is there" in caught.value.cure
    mixture.close()


WHERE = """
import os
with open({path!r}, "a") as file:
    file.write(f"{{os.getpid()}} ")
seen = lambda: os.getpid() + os.getppid()
"""


@pytest.mark.slow
def test_a_module_is_imported_in_the_template_alone(tmp_path: Path) -> None:
    path = tmp_path / "imported"
    mixture = made(tmp_path, WHERE.format(path=str(path)) + FUNCTION)
    assert mixture._worker is not None
    assert mixture._worker._connection is not None
    (where,) = map(int, path.read_text().split())
    assert where not in {os.getpid(), mixture._worker._connection.process.pid}
    # Nor do processes' numbers count the groups.
    assert judged(mixture) == [0.0] * 4
    assert len(path.read_text().split()) == 1


def test_what_the_site_vouches_for_is_imported_here(tmp_path: Path) -> None:
    path = tmp_path / "imported"
    (tmp_path / "r.py").write_text(WHERE.format(path=str(path)) + FUNCTION)
    name = f"{tmp_path / 'r.py'}:score"
    isolated_mixture(RewardSettings(functions=(name,)), stateless=(name,))
    assert path.read_text() == f"{os.getpid()} "


ABSTAINS = "def score(completions, **_):\n    return [None for _ in completions]\n"


@pytest.mark.slow
def test_a_function_that_may_abstain_says_so_from_the_template(tmp_path: Path) -> None:
    mixture = made(tmp_path, f"{ABSTAINS}score.abstains = True\n")
    assert judged(mixture) == [0.0] * 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("score", "problem"),
    [
        ("Principle('It is kind.')", "runs a model"),
        ("type('B', (), {'bind': print, '__call__': print})()", "wants the trainer's model"),
    ],
)
def test_one_of_your_own_that_runs_a_model_needs_the_policy(
    tmp_path: Path, score: str, problem: str
) -> None:
    with pytest.raises(RewardError, match=problem) as caught:
        made(tmp_path, f"from fedgrpo.rewards import Principle\nscore = {score}\n")
    assert "stateless_rewards" in caught.value.cure


IN_TEMPLATE = """
import os, signal, socket
kept, trail = {}, []
def look(*_):
    for what in (lambda: socket.create_connection(("127.0.0.1", PORT)), lambda: os.mkdir(LOOT),
                 lambda: open(LOOT), lambda: os.fork()):
        try:
            what()
        except Exception:
            continue
        trail.append(1)
    for number in range(3, 16):
        try:
            if b"secret" in os.pread(number, 1 << 20, 0):
                trail.append(1)
        except OSError:
            pass
signal.signal(signal.SIGALRM, look)
signal.setitimer(signal.ITIMER_REAL, 1.5, 0.1)
seen = lambda: len(trail)
"""


@pytest.mark.slow
def test_code_that_runs_on_in_the_template_reaches_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        port, loot = server.getsockname()[1], str(tmp_path / "loot")
        # Let it begin when everything is loaded, as what it does before is another matter.
        mixture = made(tmp_path, f"PORT, LOOT = {port}, {loot!r}\n{IN_TEMPLATE}{FUNCTION}")
        threading.Event().wait(2.0)
        assert judged(mixture) == [0.0] * 4
        with pytest.raises(TimeoutError):
            server.accept()
    assert not (tmp_path / "loot").exists()


@pytest.mark.slow
def test_a_template_that_dies_is_made_anew() -> None:
    worker = RewardWorker(["exact_match"], WorkerLimits(wall_s=2.0))
    group = {"prompts": ["p"], "completions": ["a"], "answer": ["a"]}
    assert worker.judge(group, 1).tolist() == [[1.0]]
    assert worker._connection is not None
    (child,) = Path(f"/proc/{worker._connection.process.pid}/task").iterdir()
    os.kill(int((child / "children").read_text()), 9)
    with pytest.raises(RewardError, match="died"):
        worker.judge(group, 1)
    assert worker.judge(group, 1).tolist() == [[1.0]]
    worker.close()


def test_a_group_that_nobody_took_ends_the_worker() -> None:
    """Else the template would find it when it goes on."""
    left, link = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        # The template's child ends at once, and takes nothing.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        number = os.fork()
        if number == 0:
            threading.Event().wait(60)
        taker = os.fork()
        if taker == 0:
            os._exit(0)
        left.send(taker.to_bytes(4, "little"))
        try:
            Template(number, link).judged(WorkerLimits(), (reading,))
        except BlockingIOError:
            os.kill(number, signal.SIGKILL)
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    for descriptor in (reading, writing):
        os.close(descriptor)
    left.close()
    link.close()


def test_threads_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template, "_THREADS_END_S", 0.05)
    monkeypatch.setattr(template, "count_threads", lambda: 3)
    with pytest.raises(RewardError, match="left 2 threads"):
        template._refuse_threads()
