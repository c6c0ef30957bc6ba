"""What a user's reward does in a process of its own costs the group at which it did it."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedgrpo.ground.errors import RewardError
from fedgrpo.rewards.apart import process
from fedgrpo.rewards.apart.mixture import guarded_mixture
from fedgrpo.rewards.calling.context import TrainerState
from fedgrpo.rewards.calling.judge import MissingColumnError
from fedgrpo.rewards.composite import RewardMixture, RewardResult, check_columns
from fedgrpo.settings import RewardSettings
from tests.federation.deployment.operated import until

UNRULY = Path(__file__).with_name("unruly.py")
GROUP = 2


def made(*functions: str, **options: Any) -> RewardMixture:
    names = tuple(f"{UNRULY}:{name}" for name in functions)
    limits: dict[str, Any] = {"cpu_s": 1, "timeout_s": 30.0}
    return guarded_mixture(RewardSettings(functions=names, **{**limits, **options}))


def judged(mixture: RewardMixture, kinds: list[str], **columns: list[Any]) -> RewardResult:
    what = [kind for kind in kinds for _ in range(GROUP)]
    texts = ["aa", "bbb"] * len(kinds)
    own = {name: [v for v in values for _ in range(GROUP)] for name, values in columns.items()}
    return mixture.judge(what, texts, {"what": what, **own}, GROUP, TrainerState(3, 9))


def totals(found: RewardResult) -> list[list[float]]:
    return found.total.reshape(-1, GROUP).tolist()


@pytest.fixture(scope="module")
def act() -> Iterator[RewardMixture]:
    mixture = made("act")
    yield mixture
    mixture.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("loop", "more than reward.cpu_s = 1 s of CPU time"),
        ("exit", "ended its process"),
        ("crash", "crashed by signal 11"),
        ("memory", "raised MemoryError"),
        ("raise", r"raised ValueError in unruly.py, line \d+$"),
        ("leave", "raised SystemExit"),
        ("none", "no reward applies"),
        ("orphan", "ended its process"),
    ],
)
def test_what_a_reward_does_at_a_group_costs_that_group_alone(
    act: RewardMixture, kind: str, problem: str
) -> None:
    found = judged(act, ["fine", kind, "fine"])
    assert totals(found) == [[2.0, 3.0], [0.0, 0.0], [2.0, 3.0]]
    assert found.counted().tolist() == [True, True, False, False, True, True]
    assert list(found.failures) == [1]
    assert re.search(problem, found.failures[1].problem)
    assert found.failures[1].cure


@pytest.mark.slow
def test_a_reward_that_waits_for_ever_is_ended_at_its_limit() -> None:
    found = judged(made("act", timeout_s=1.5), ["fine", "sleep", "fine"])
    assert list(found.failures) == [1]
    assert "reward.timeout_s = 1.5" in found.failures[1].problem
    assert totals(found)[2] == [2.0, 3.0]


def test_a_reward_may_use_a_pool_of_processes(act: RewardMixture) -> None:
    assert totals(judged(act, ["pool", "pool"])) == [[2.0, 3.0]] * 2


@pytest.mark.slow
def test_asynchronous_functions_and_objects_are_awaited_over_all_groups_together() -> None:
    mixture = made("later", "judge", "act", timeout_s=5.0)
    found = judged(mixture, ["fine"] * 20)
    assert totals(found) == [[5.0, 7.0]] * 20
    found = judged(mixture, ["fine", "raise", "sleep", "exit", "fine"])
    assert [bool(found.failures.get(i)) for i in range(5)] == [False, True, True, True, False]
    assert "'later'" not in found.failures[3].problem
    assert totals(found)[4] == [5.0, 7.0]


def test_rewards_of_modules_judge_elsewhere_and_remember() -> None:
    mixture = made("remembers", "process")
    found, again = judged(mixture, ["a", "b"]), judged(mixture, ["c"])
    pid = found.per_function[f"{UNRULY}:process"]
    assert set(pid) == set(again.per_function[f"{UNRULY}:process"])
    assert os.getpid() not in set(pid)
    assert found.notes.means() == {"calls": 1.5}
    assert again.notes.means() == {"calls": 3.0}
    assert found.notes.extras["said"] == ["AA", "BBB"] * 2
    assert found.per_function[f"{UNRULY}:remembers"].tolist() == [3.0] * 4


def test_a_reward_that_changes_its_arguments_disturbs_no_other() -> None:
    cases = [["x"], ["y"]]
    found = judged(made("spoils", "spoils()"), ["a", "b"], cases=cases)
    assert totals(found) == [[4.0, 4.0]] * 2
    assert cases == [["x"], ["y"]]


def test_a_reward_that_wants_the_trainers_model_judges_in_the_trainers_process() -> None:
    mixture = made("needs_model", "act")
    assert hasattr(mixture.functions[0][1], "bind")
    assert not hasattr(mixture.functions[1][1], "bind")


def test_built_in_rewards_need_no_process() -> None:
    mixture = guarded_mixture(RewardSettings(functions=("exact_match", "numeric_match")))
    assert getattr(mixture, "_process") is None  # noqa: B009


def test_held_out_prompts_may_be_judged_by_other_functions() -> None:
    settings = RewardSettings(
        functions=("exact_match", "repetition"), weights=(1.0, 0.5), evaluation=("numeric_match",)
    )
    assert guarded_mixture(settings).names == ["exact_match", "repetition"]
    held_out = guarded_mixture(settings, evaluation=True)
    assert (held_out.names, held_out.weights.tolist()) == (["numeric_match"], [1.0])


def test_a_column_that_a_reward_lacks_is_found_before_anything_is_judged() -> None:
    mixture = made("act", "connects")
    with pytest.raises(MissingColumnError, match=r"'where'(.|\n)*they have answer, what(.|\n)*dat"):
        check_columns(mixture, ("what", "answer"))
    with pytest.raises(MissingColumnError, match="'where'"):
        judged(mixture, ["fine", "fine"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "problem"),
    [("import gone", "needs 'gone'"), ("1/0", "failed to load"), ("x = 1", "has no 'f'")],
)
def test_what_cannot_be_loaded_is_refused_by_name(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "r.py").write_text(text)
    with pytest.raises(RewardError, match=problem):
        guarded_mixture(RewardSettings(functions=(f"{tmp_path}/r.py:f",)))


def test_a_module_that_ends_its_process_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.py").write_text("import os\nos._exit(0)")
    with pytest.raises(RewardError, match="did not start"):
        guarded_mixture(RewardSettings(functions=(f"{tmp_path}/r.py:f",)))


@pytest.mark.slow
def test_a_module_that_never_ends_is_refused_at_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "r.py").write_text("while True: pass")
    monkeypatch.setattr(process, "START_S", 0.5)
    with pytest.raises(RewardError, match=r"r\.py:f: not loaded within 0\.5 s") as caught:
        guarded_mixture(RewardSettings(functions=(f"{tmp_path}/r.py:f",)))
    assert "comes to an end" in caught.value.cure


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_what_a_reward_left_in_the_background_ends_with_it_and_keeps_no_pipe_open() -> None:
    """Whoever reads this command's output would wait for it: fedgrpo train | tee log."""
    mixture = made("act")
    (left,) = {int(pid) for pid in judged(mixture, ["background"]).total}
    assert Path(f"/proc/{left}").exists()
    mixture.close()
    state = Path(f"/proc/{left}/stat")
    until(lambda: not state.exists() or state.read_text().split()[2] == "Z", "its end")


@pytest.mark.slow
def test_a_reward_without_network_reaches_nobody_and_still_reads_files() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = [server.getsockname()[1]]
        assert totals(judged(made("connects"), ["a"], where=where)) == [[1.0, 1.0]]
        try:
            alone = made("connects", network=False)
        except RewardError:
            pytest.skip("this kernel lets no process leave the network")
        assert "raised OSError" in judged(alone, ["a"], where=where).failures[0].problem
