from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedgrpo.ground.errors import RewardError
from fedgrpo.rewards import Principle, RewardMixture, RewardModel, TokenJudge
from fedgrpo.rewards.sandboxed import client as worker_client
from fedgrpo.rewards.sandboxed import connection as worker_connection
from fedgrpo.rewards.sandboxed import isolated
from fedgrpo.rewards.sandboxed.isolated import (
    IsolatedMixture,
    WorkerLimits,
    isolated_mixture,
    runs_model,
)
from fedgrpo.rewards.sandboxed.sandbox import sandbox_available
from fedgrpo.rewards.verifiable import symbolic
from fedgrpo.rewards.verifiable.length import CosineLength
from fedgrpo.rewards.verifiable.verifiers import exact_match
from fedgrpo.settings import RewardSettings

HOSTILE = Path(__file__).with_name("hostile.py")
SECRET = "patient Zyx"
LIMITS = WorkerLimits(cpu_s=1, wall_s=15.0, memory_mb=200)

pytestmark = pytest.mark.skipif(not sandbox_available(), reason="needs Linux's seccomp filters")


def made(*functions: str, **options: Any) -> IsolatedMixture:
    names = tuple(f"{HOSTILE}:{f}" if f.isidentifier() else f for f in functions)
    return isolated_mixture(RewardSettings(functions=names), limits=LIMITS, **options)


def rewards(mixture: RewardMixture, prompt: str = "p", **columns: Any) -> list[float]:
    found = mixture([prompt] * 2, ["a", "b"], {n: [v] * 2 for n, v in columns.items()})
    return found.total.tolist()


@pytest.fixture(scope="module")
def hostile() -> Iterator[IsolatedMixture]:
    mixture = made("act")
    yield mixture
    mixture.close()


def test_asynchronous_rewards_are_awaited_where_nothing_can_be_opened() -> None:
    mixture = made("later", "told")
    found = mixture.judge(["p"] * 2, ["a", "bbb"], {}, 2)
    assert found.total.tolist() == [3.0, 3.0]
    assert not found.notes.metrics
    assert not found.notes.extras
    with pytest.raises(RewardError, match="raised ValueError"):
        rewards(mixture, what="raise")
    mixture.close()


def test_a_reward_that_remembers_judges_every_group_as_if_alone() -> None:
    mixture = made("novelty", "calls")
    first = mixture(["p"] * 3, ["a", "b", "a"], {})
    others = [mixture(["q"] * 3, ["b", "c", "a"], {}) for _ in range(3)]
    again = mixture(["p"] * 3, ["a", "b", "a"], {})
    novelty, calls = first.per_function.values()
    assert novelty.tolist() == [1.0, 1.0, 0.0]
    assert calls.tolist() == [4.0, 4.0, 4.0]
    assert first.total.tolist() == again.total.tolist()
    assert all(other.total.tolist() == [5.0, 5.0, 5.0] for other in others)
    mixture.close()


def test_chance_is_the_same_for_every_group_and_every_worker() -> None:
    mixture = made("chance")
    found = [rewards(mixture), rewards(mixture)]
    mixture.close()
    assert [*found, rewards(mixture)] == [found[0]] * 3
    mixture.close()


FORBIDDEN = [
    "write {new}",
    "append {file}",
    "update {file}",
    "remove {file}",
    "rename {file}",
    "link {file}",
    "symlink {file}",
    "mkdir {file}",
    "mode {file}",
    "times {file}",
    "attribute {file}",
    "truncate {file}",
    "fifo {file}",
    "lock {file}",
    "record_lock {file}",
    "unnamed",
    "shared_file",
    "tcp",
    "unix",
    "inherited",
    "inherited_file",
    "fork",
    "outlive",
    "signal_parent",
    "signal_itself",
    "signal_group",
    "priority",
    "read {file}",
    "list {folder}",
    "look {file}",
    "access {file}",
    "link_text",
    "resident",
    "others_clock",
]


@pytest.mark.slow
@pytest.mark.parametrize("act", FORBIDDEN)
def test_nothing_that_outlives_the_group_can_be_written(
    hostile: IsolatedMixture, tmp_path: Path, act: str
) -> None:
    file, new = tmp_path / "file", tmp_path / "new"
    file.write_text("as it was")
    before = file.stat()
    done = act.format(file=file, new=new, folder=tmp_path)
    assert rewards(hostile, act=done) == [1.0, 1.0]
    assert file.read_text() == "as it was"
    assert (file.stat().st_mode, file.stat().st_mtime) == (before.st_mode, before.st_mtime)
    assert list(tmp_path.iterdir()) == [file]


HARMLESS_HERE = (
    "write {new}|append {file}|update {file}|link {file}|mkdir {file}|mode {file}|times {file}|"
    "truncate {file}|lock {file}|record_lock {file}|tcp|inherited|inherited_file|"
    "look {file}|access {file}|resident|others_clock"
)


@pytest.mark.parametrize("act", HARMLESS_HERE.split("|"))
def test_the_same_acts_succeed_in_this_process(tmp_path: Path, act: str) -> None:
    file, new = tmp_path / "file", tmp_path / "new"
    file.write_text("as it was")
    mixture = made("act", stateless=(f"{HOSTILE}:act",))
    assert rewards(mixture, act=act.format(file=file, new=new)) == [0.0, 0.0]


CALLS = {
    "shmget": "29 1 4096 950",
    "semget": "64 1 1 950",
    "msgget": "68 1 950",
    "memfd_create": "319 0 0",
    "mq_open": "240 0 0 0 0",
    "add_key": "248 0 0 0 0 0",
    "io_uring_setup": "425 1 0",
    "ptrace": "101 0 0 0 0",
    "process_vm_writev": "311 1 0 0 0 0 0",
    "pidfd_open": "434 1 0",
    "personality": "135 0",
    "prlimit64 with a new limit": "302 0 1 1 0",
    "setrlimit": "160 1 0",
    "prctl(PR_SET_PDEATHSIG)": "157 1 0 0 0 0",
    "fcntl(F_SETOWN)": "72 1 8 1",
    "ioctl(TIOCSTI)": f"16 1 {0x5412} 0",
    "unshare": "272 0x10000000",
    "a call through the 32-bit ABI of x86-64": f"{0x40000000 + 39}",
    "a call that no kernel has": "9999",
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of x86-64")
def test_calls_outside_the_list_are_refused(hostile: IsolatedMixture, call: str) -> None:
    numbers = " ".join(str(int(part, 0)) for part in CALLS[call].split())
    assert rewards(hostile, act=f"syscall {numbers}") == [1.0, 1.0]


FAILURES = {
    # Whichever comes first: a machine that is busy elsewhere gives it less than all of its time.
    "for_ever": "more than 1 s of CPU time|took longer than",
    "exit": "without an answer",
    "crash": "crashed by signal 11",
    "abort": "crashed by signal",
    "eat": "raised MemoryError",
    "raise": "raised an error of its own",
    "raise_known": "raised KeyError",
    "system_exit": "raised SystemExit",
    "forge": "without an answer",
    "few": "did not return one finite number",
    "infinite": "did not return one finite number",
    "text": "did not return one finite number",
    "silent": "no reward applies to completion 1",
    "import colorsys": "raised ModuleNotFoundError",
}


@pytest.mark.slow
@pytest.mark.parametrize("act", FAILURES)
def test_a_failure_costs_that_group_only(hostile: IsolatedMixture, act: str) -> None:
    with pytest.raises(RewardError, match=FAILURES[act]) as caught:
        rewards(hostile, SECRET, act=act)
    shown = f"{caught.value} {caught.value.__cause__} {caught.value.__context__}"
    assert "Zyx" not in shown
    assert rewards(hostile, act="nothing") == [5.0, 5.0]


def test_a_reward_that_sleeps_is_ended_by_the_clock() -> None:
    mixture = isolated_mixture(
        RewardSettings(functions=(f"{HOSTILE}:act",)), limits=WorkerLimits(wall_s=0.3)
    )
    with pytest.raises(RewardError, match=r"longer than 0.3 s"):
        rewards(mixture, act="sleep")
    assert rewards(mixture, act="nothing") == [5.0, 5.0]
    mixture.close()


def test_what_harms_nobody_is_allowed(
    hostile: IsolatedMixture, capfd: pytest.CaptureFixture[str]
) -> None:
    assert rewards(hostile, act="thread") == [3.0, 3.0]
    assert rewards(hostile, act="import json") == [4.0, 0.0]
    assert rewards(hostile, act=f"print {SECRET}") == [7.0, 7.0]
    assert SECRET not in "".join(capfd.readouterr())


def test_a_worker_that_dies_is_made_anew(hostile: IsolatedMixture) -> None:
    assert hostile._worker is not None
    for _ in range(2):
        assert rewards(hostile, act="nothing") == [5.0, 5.0]
        assert hostile._worker._connection is not None
        process = hostile._worker._connection.process
        process.kill()
        process.wait()
    assert rewards(hostile, act="nothing") == [5.0, 5.0]


def test_a_worker_that_is_killed_while_it_judges_costs_that_group(hostile: IsolatedMixture) -> None:
    assert rewards(hostile, act="nothing") == [5.0, 5.0]
    assert hostile._worker is not None
    assert hostile._worker._connection is not None
    process = hostile._worker._connection.process
    timer = threading.Timer(0.2, process.kill)
    timer.start()
    with pytest.raises(RewardError, match="process in which rewards judge died"):
        rewards(hostile, act="sleep")
    timer.join()
    assert rewards(hostile, act="nothing") == [5.0, 5.0]


def test_a_worker_that_hangs_costs_that_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_client, "GRACE_S", 0.1)
    name = f"{HOSTILE}:act"
    mixture = isolated_mixture(RewardSettings(functions=(name,)), limits=WorkerLimits(wall_s=0.2))
    assert mixture._worker is not None
    assert mixture._worker._connection is not None
    os.kill(mixture._worker._connection.process.pid, signal.SIGSTOP)
    with pytest.raises(RewardError, match=r"died \(TimeoutError\)"):
        rewards(mixture, act="nothing")
    monkeypatch.undo()
    assert rewards(mixture, act="nothing") == [5.0, 5.0]
    mixture.close()


def test_after_an_interruption_no_group_gets_anothers_answer(
    hostile: IsolatedMixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(worker_connection, "_read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            rewards(hostile, act="thread")
    assert rewards(hostile, act="nothing") == [5.0, 5.0]


def test_a_worker_ends_with_the_process_that_it_works_for(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        mixture = made("act")
        assert mixture._worker is not None
        assert mixture._worker._connection is not None
        os.write(writing, str(mixture._worker._connection.process.pid).encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    worker = int(os.read(reading, 20))
    deadline = time.monotonic() + 10
    while _is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _is_running(worker)
    os.close(reading)
    os.close(writing)


def _is_running(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False


def test_a_forked_process_gets_a_worker_of_its_own(hostile: IsolatedMixture) -> None:
    assert rewards(hostile, act="nothing") == [5.0, 5.0]
    child = os.fork()
    if child == 0:
        os._exit(0 if rewards(hostile, act="nothing") == [5.0, 5.0] else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert rewards(hostile, act="nothing") == [5.0, 5.0]


def test_rewards_can_be_judged_from_any_thread() -> None:
    found: list[list[float]] = []
    mixture = isolated_mixture(RewardSettings(functions=("numeric_match",)))
    thread = threading.Thread(target=lambda: found.append(rewards(mixture, answer="3")))
    thread.start()
    thread.join()
    assert found == [[0.0, 0.0]]


LIGHT = ("exact_match", "numeric_match", "think_answer_format", "repetition", "grounding")
TEXT = st.text("0123456789 .,-<>/abthinkswer\\box{}", max_size=30)


@pytest.mark.slow
@settings(max_examples=25)
@given(
    st.lists(TEXT, min_size=2, max_size=6),
    st.one_of(st.none(), TEXT, st.integers(), st.floats(allow_nan=False)),
    st.lists(TEXT, max_size=3),
    st.booleans(),
)
def test_built_in_rewards_give_what_they_give_in_this_process(
    texts: list[str], answer: Any, facts: list[str], is_chat: bool
) -> None:
    functions = (*LIGHT, "self_consistency", "self_consistency_text")
    reward = RewardSettings(functions=functions, weights=tuple(range(1, 8)))
    prompt: Any = [{"role": "user", "content": "?"}] if is_chat else "?"
    completions: list[Any] = [
        [{"role": "assistant", "content": text}] if is_chat else text for text in texts
    ]
    columns = {
        "answer": [answer] * len(texts),
        "facts": [facts] * len(texts),
        "completion_ids": [[ord(letter) for letter in text] for text in texts],
    }
    arguments = [prompt] * len(texts), completions, columns
    apart, here = isolated_mixture(reward), RewardMixture.from_settings(reward)
    found, wanted = apart(*arguments), here(*arguments)
    assert found.total.tobytes() == wanted.total.tobytes()
    assert list(found.per_function) == list(functions)
    for name in functions:
        np.testing.assert_array_equal(found.per_function[name], wanted.per_function[name])


@pytest.mark.slow
def test_symbolic_match_judges_apart_and_a_tower_of_powers_costs_one_completion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedgrpo.rewards.verifiable.symbolic.TIMEOUT_S", symbolic.TIMEOUT_S)
    pytest.importorskip("math_verify", reason="needs fedgrpo[symbolic]")
    (tmp_path / "quick.py").write_text(
        "from fedgrpo.rewards.verifiable import symbolic\n"
        "symbolic.TIMEOUT_S = 0.2\n"
        "match = symbolic.symbolic_match\n"
    )
    name = f"{tmp_path / 'quick.py'}:match"
    mixture = isolated_mixture(RewardSettings(functions=("symbolic_match", name)))
    texts = [r"\boxed{\frac{1}{2}}", r"$0.5$", "no", r"\boxed{9^{9^{9^{9}}}}"]
    found = mixture(["p"] * 4, texts, {"answer": ["1/2"] * 4})
    assert found.total.tolist() == [2.0, 2.0, 0.0, 0.0]
    mixture.close()


FORMULAS = {
    r"x^2-1": r"(x-1)(x+1)",
    r"\int_0^1 x dx": r"\frac12",
    r"\sqrt{2}+i": r"i+\sqrt2",
    r"\log_2 8": "3",
    r"\sum_{k=1}^{n}k": r"\frac{n(n+1)}{2}",
    r"\frac{d}{dx}x^2": "2x",
    r"|x|": r"\sqrt{x^2}",
}


@pytest.mark.slow
def test_formulas_need_nothing_that_is_imported_late() -> None:
    pytest.importorskip("math_verify", reason="needs fedgrpo[symbolic]")
    mixture = isolated_mixture(RewardSettings(functions=("symbolic_match",)))
    for wanted, given_ in FORMULAS.items():
        found = mixture(["p"], [rf"\boxed{{{given_}}}"], {"answer": [wanted]})
        assert found.total.tolist() == [1.0], wanted
    mixture.close()


def test_classes_files_modules_and_columns_of_any_kind_go_apart(tmp_path: Path) -> None:
    (tmp_path / "scale.py").write_text("def twice(completions, **_):\n    return [2] * 2\n")
    names = (
        f"{tmp_path / 'scale.py'}:twice",
        "fedgrpo.rewards.verifiable.formats:think_answer_format",
    )
    mixture = made("Lengths", "nested", *names)
    meta = {"scores": [0.5, None, True], "name": "\u00e4\u4e2d", "deep": {"a": [{}]}}
    assert mixture._apart == tuple(mixture.names)
    assert rewards(mixture, meta=meta) == [1 + 2.5 + 2 + 0] * 2
    assert rewards(mixture, meta=None) == [1 + 2 + 0] * 2
    mixture.close()


def test_what_the_site_vouches_for_judges_in_this_process() -> None:
    name = f"{HOSTILE}:novelty"
    mixture = made("novelty", stateless=(name, "something else"))
    assert mixture._worker is None
    assert [rewards(mixture), rewards(mixture)] == [[1.0, 1.0], [0.0, 0.0]]


def test_without_a_sandbox_only_what_the_site_vouches_for_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(isolated, "sandbox_available", lambda: False)
    with pytest.raises(RewardError, match="can leave nothing behind") as caught:
        isolated_mixture(RewardSettings(functions=("numeric_match",)))
    assert "stateless_rewards" in caught.value.cure
    for name, stateless in (("numeric_match", ("numeric_match",)), ("exact_match", ())):
        mixture = isolated_mixture(RewardSettings(functions=(name,)), stateless=stateless)
        assert mixture._worker is None
    assert rewards(mixture, answer="a") == [1.0, 0.0]


def test_what_compares_plainly_judges_here_and_no_wrapper_of_it_does(tmp_path: Path) -> None:
    """A process for a comparison costs fifty times the comparison; whatever else is built in, or
    brings code, judges apart.
    """
    source = "from fedgrpo.rewards.verifiable.verifiers import exact_match\nmine = exact_match\n"
    (tmp_path / "r.py").write_text(source)
    mine = f"{tmp_path / 'r.py'}:mine"
    functions = (*LIGHT, mine)
    mixture = isolated_mixture(RewardSettings(functions=functions))
    assert mixture._apart == (*(n for n in LIGHT if n not in ("exact_match", "repetition")), mine)
    mixture.close()


def test_several_prompts_in_one_call_are_refused() -> None:
    mixture = isolated_mixture(RewardSettings(), stateless=("exact_match",))
    with pytest.raises(RewardError, match="given several"):
        mixture(["p", "q"], ["a", "b"], {"answer": ["a", "b"]})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("raise ValueError('x')\n", "failed to load"),
        ("import os; os._exit(4)\n", "did not start"),
        ("import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\n",
         "left 1 threads running"),
    ],
)  # fmt: skip
def test_a_module_that_fails_in_the_worker_is_told_at_once(
    tmp_path: Path, source: str, problem: str
) -> None:
    (tmp_path / "r.py").write_text(f"{source}def f(completions):\n    return [0.0]\n")
    with pytest.raises(RewardError, match=problem):
        isolated_mixture(RewardSettings(functions=(f"{tmp_path / 'r.py'}:f",)))


class Remembering(Principle):
    """Derived from a built-in judge, so it could keep anything."""


class Borrowing:
    """Wants the trainer's model."""

    def bind(self, adapter: object) -> None:
        """Take it."""

    def __call__(self, completions: list[str]) -> list[float]:
        return [0.0 for _ in completions]


def test_only_built_in_judges_run_a_model_beside_the_prompts() -> None:
    assert runs_model("r", Principle("It is kind."))
    assert runs_model("r", CosineLength(Principle("It is kind."), 10))
    assert runs_model("r", RewardModel.__new__(RewardModel))
    assert not runs_model("r", exact_match)
    assert not runs_model("r", CosineLength(exact_match, 10))
    judge = type("Judge", (TokenJudge,), {})()
    for function in (
        Remembering("It is kind."),
        Borrowing(),
        CosineLength(Borrowing(), 10),
        Principle("It is kind.", judge),
    ):
        with pytest.raises(RewardError, match="wants the trainer's model"):
            runs_model("r", function)


def test_limits_are_positive() -> None:
    with pytest.raises(RewardError, match="memory_mb is 0"):
        WorkerLimits(memory_mb=0)
