"""What a deployed node answers to an order to train, and when: whatever its prompts are."""

from __future__ import annotations

import json
import logging
import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, RecordDict

from fedgrpo.federation import LocalGrid, make_client_app
from fedgrpo.federation.node.clients.watch import Watch
from fedgrpo.federation.node.clock import LateError, SystemClock
from fedgrpo.federation.node.gate import source_of
from fedgrpo.federation.state.node_store import MOST_RUNS, Ask, FolderShelf, NodeStore, _Basis
from fedgrpo.federation.wire.codec import Header, encode
from fedgrpo.federation.wire.messages import (
    TRAIN,
    TrainOrder,
    read_kept_basis,
    read_release,
    write_order,
)
from fedgrpo.federation.wire.plans import plan_hash, release_plan
from fedgrpo.ground.errors import AdapterError, ModelError, RewardError
from fedgrpo.privacy import epsilon_gaussian
from fedgrpo.privacy.release import release_update, zero_release
from fedgrpo.settings import METRICS, Scalar
from fedgrpo.site import MishapFile, Refusal, SpendingFile, declared_by, spent_epsilon
from fedgrpo.site.declared import FINISH_S
from fedgrpo.site.node_folder import folder_beside, locked
from fedgrpo.site.site import Site
from tests.federation.federation import DIMENSION, make_adapter, make_settings
from tests.federation.kills import KilledError
from tests.federation.sites import EVERYTHING, PUBLIC, FakeClock, approve, code_of, make_site

RUN = "ab" * 16
AFTER_S = 60.0
SHOWN: dict[str, Scalar] = {
    "rounds": 500,
    "privacy__unit": "client",
    "privacy__noise_multiplier": 8.0,
    "privacy__max_epsilon": 1e6,
    "aggregation__protocol": "plain",
    "federation__round_timeout_s": 600.0,
}
"""A private run that shows the server each release: what a malicious server would ask for."""
SECRET_DELTA = np.full(DIMENSION, 0.3)


class PanicError(BaseException):
    """Stands for what code in Rust raises where it panics."""


@dataclass
class Client:
    """Takes some time on the test's clock, fails or not, and may be sized before the charge."""

    clock: FakeClock
    takes_s: float = 5.0
    sized_s: float = 10.0
    failure: BaseException | None = None
    unready: Exception | None = None
    lengths: list[float] = field(default_factory=list)

    def __call__(self, *_: Any) -> Client:
        return self

    def prepare(self, *_: Any) -> float:
        if self.unready:
            raise self.unready
        return self.sized_s

    def contribute(self, adapter: Any, plan: Any, round: int, key: bytes, watch: Watch) -> Any:
        self.lengths.append(watch.deadline - self.clock.now())
        self.clock.time += self.takes_s
        if self.failure:
            raise self.failure
        return release_update(SECRET_DELTA, np.full(len(METRICS), 0.5), plan, key)


def written_whole(order: TrainOrder) -> RecordDict:
    """An order as a node gets it that has kept no frozen basis."""
    return write_order(order, kept=False)


class Deployed:
    """One deployed node that a test plays the server for; its processes come and go."""

    def __init__(self, folder: Path, policy: str = PUBLIC + EVERYTHING, **settings: Scalar) -> None:
        self.folder, self.clock = folder, FakeClock()
        self.config = make_site(folder, policy)
        self.settings = make_settings(**SHOWN | settings)
        self.client: Any = Client(self.clock)
        self.runs, self.run = 0, RUN
        self.write = written_whole

    def connect(self) -> LocalGrid:
        """Start a process that remembers nothing but what is on the node's disk."""
        self.runs += 1
        return LocalGrid(
            make_client_app(self.client, clock=self.clock),
            1,
            node_config=lambda _: self.config,
            run_config=self.settings.to_run_config(),
            run_id=self.runs,
        )

    def order(self, round: int) -> TrainOrder:
        header, fingerprint = Header(self.runs, round), self.settings.fingerprint()
        return TrainOrder(header, self.run, make_adapter(), 1.0, fingerprint)

    def ask(self, round: int = 1, grid: LocalGrid | None = None) -> Message:
        grid = grid or self.connect()
        order = self.order(round)
        message = Message(self.write(order), dst_node_id=1001, message_type=TRAIN)
        (reply,) = grid.send_and_receive([message])
        return reply

    def release(self, round: int = 1) -> Any:
        """Ask, and return the release and the seconds after which it left."""
        came = self.clock.now()
        reply = self.ask(round)
        assert code_of(reply) is None
        size = DIMENSION + len(METRICS)
        return read_release(reply.content, size), self.clock.now() - came

    def zero(self, round: int = 1) -> Any:
        """What leaves if nothing is contributed."""
        plan = release_plan(self.settings, DIMENSION, 1.0)
        source = source_of(self.config, declared_by(self.config, self.settings))
        ask = Ask(RUN, round, plan_hash(self.settings, self.order(round), plan, source))
        store = NodeStore(FolderShelf(folder_beside(self.folder / "prompts.jsonl")))
        return zero_release(plan, store.key(ask))

    @property
    def charged(self) -> int:
        return len(SpendingFile(self.folder / "spent.jsonl").read().entries)

    @property
    def mishaps(self) -> dict[str, int]:
        return dict(Site.open(self.folder / "policy.toml").mishaps.read())


# The time of an answer --------------------------------------------------------------------------


@pytest.mark.parametrize("takes_s", [0.0, 5.0, 57.9, 58.1, 59.0, 1e6])
def test_an_answer_leaves_when_the_policy_says_however_long_the_work_took(
    tmp_path: Path, takes_s: float
) -> None:
    """The attack that told by the reply time whether one long prompt was sampled."""
    node = Deployed(tmp_path)
    node.client.takes_s = takes_s
    came = node.clock.now()
    assert code_of(node.ask()) is None
    assert node.clock.waits == [came + AFTER_S]


@pytest.mark.parametrize("takes_s", [58.1, 1e6])
def test_what_comes_too_late_is_thrown_away_for_zero_under_the_noise(
    tmp_path: Path, takes_s: float
) -> None:
    node = Deployed(tmp_path)
    node.client.takes_s = takes_s
    np.testing.assert_array_equal(node.release()[0], node.zero())
    assert node.mishaps == {"whole contribution zero: it came too late": 1}


def test_the_whole_time_but_what_the_reply_takes_is_the_clients(tmp_path: Path) -> None:
    node = Deployed(tmp_path)
    node.release()
    assert node.client.lengths == [AFTER_S - FINISH_S]


def test_an_answer_kept_from_before_leaves_after_the_same_time(tmp_path: Path) -> None:
    node = Deployed(tmp_path)
    first, second = node.release(), node.release()
    np.testing.assert_array_equal(first[0], second[0])
    assert first[1] == second[1] == AFTER_S
    assert (len(node.client.lengths), node.charged) == (1, 1)


@pytest.mark.parametrize(("sized_s", "code"), [(58.0, None), (58.1, Refusal.ANSWER_TIME)])
def test_an_order_that_can_take_longer_is_refused_before_the_charge(
    tmp_path: Path, sized_s: float, code: Refusal | None
) -> None:
    node = Deployed(tmp_path)
    node.client.sized_s = sized_s
    assert code_of(node.ask()) is code
    assert node.charged == (code is None)


@pytest.mark.parametrize(
    ("line", "timeout_s"), [("answer_after_s = 60.0", 60.0), ("answer_after_s = 0.0", 600.0)]
)
def test_a_time_that_is_missing_or_beyond_the_servers_patience_is_refused(
    tmp_path: Path, line: str, timeout_s: float
) -> None:
    policy = PUBLIC.replace("answer_after_s = 60.0", line) + EVERYTHING
    node = Deployed(tmp_path, policy, federation__round_timeout_s=timeout_s)
    assert code_of(node.ask()) is Refusal.ANSWER_TIME
    assert node.charged == 0


@pytest.mark.parametrize(("sized_s", "computed"), [(58.0, True), (58.1, False)])
def test_a_process_that_died_computes_again_only_where_the_whole_time_is_left(
    tmp_path: Path, sized_s: float, computed: bool
) -> None:
    """Else it would be known by its zero rows how far it came; and it is not charged again."""
    node = Deployed(tmp_path)
    node.client.failure = KilledError()
    with pytest.raises(KilledError):
        node.ask()
    node.client.failure, node.client.sized_s = None, sized_s
    release, seconds = node.release()
    assert seconds == AFTER_S
    assert len(node.client.lengths) == 1 + computed
    assert np.array_equal(release, node.zero()) is not computed
    assert node.charged == 1
    died = "whole contribution zero: a process died, and too little time is left to compute again"
    assert node.mishaps == ({} if computed else {died: 1})


def test_work_that_hangs_is_left_behind() -> None:
    import threading

    clock, forever = SystemClock(), threading.Event()
    with pytest.raises(LateError):
        clock.run(forever.wait, clock.now() + 0.02)
    forever.set()
    assert clock.run(lambda: 7, clock.now() + 10) == 7
    with pytest.raises(KeyError):
        clock.run({}.popitem, clock.now() + 10)


def test_an_interruption_of_left_work_is_a_failure_like_any_other() -> None:
    """Nobody interrupts that thread: what looks like it was raised by what reads prompts."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    clock = SystemClock()
    with pytest.raises(RuntimeError, match="work raised KeyboardInterrupt"):
        clock.run(interrupted, clock.now() + 10)


# One kind of answer -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [KeyError("a prompt"), MemoryError(), SystemExit(), RewardError("r"), PanicError("a prompt")],
)
def test_a_failure_after_the_charge_is_a_release_at_its_time(
    tmp_path: Path, failure: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    node = Deployed(tmp_path)
    node.client.failure = failure
    with caplog.at_level(logging.WARNING):
        release, seconds = node.release()
    np.testing.assert_array_equal(release, node.zero())
    assert (seconds, node.charged) == (AFTER_S, 1)
    assert node.mishaps == {f"whole contribution zero: {type(failure).__name__}": 1}
    assert "contribution failed" in caplog.text


def test_what_a_client_counts_is_kept_for_the_sites_own_people(tmp_path: Path) -> None:
    class Counting(Client):
        def contribute(self, *arguments: Any) -> Any:
            arguments[-1].mishaps["a prompt is too long"] += 3
            return super().contribute(*arguments)

    node = Deployed(tmp_path)
    node.client = Counting(node.clock)
    node.release(1), node.release(2)
    assert node.mishaps == {"a prompt is too long": 6}
    assert (tmp_path / "spent.mishaps.jsonl").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("unready", "code"),
    [
        (ModelError("m"), Refusal.MODEL_LOAD),
        (RewardError("r"), Refusal.REWARD_LOAD),
        (AdapterError("a"), Refusal.ADAPTER),
        (KeyError("k"), Refusal.FAILED),
    ],
)
def test_what_cannot_be_loaded_is_told_before_the_charge_and_at_the_time_of_an_answer(
    tmp_path: Path, unready: Exception, code: Refusal
) -> None:
    node = Deployed(tmp_path)
    node.client.unready = unready
    came = node.clock.now()
    assert code_of(node.ask()) is code
    assert (node.charged, node.clock.waits) == (0, [came + AFTER_S])


def test_a_disk_that_fails_after_the_charge_shows_no_computing_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither what cannot be counted nor what cannot be kept makes an answer leave early."""

    def full(*_: Any) -> None:
        raise OSError("disk full")

    node = Deployed(tmp_path)
    node.client.failure = KeyError()
    monkeypatch.setattr(MishapFile, "add", full)
    assert code_of(node.ask(1)) is None
    monkeypatch.setattr(NodeStore, "keep", full)
    came = node.clock.now()
    assert code_of(node.ask(2)) is Refusal.STATE
    assert node.clock.waits[-1] == node.clock.now() == came + AFTER_S


@pytest.mark.parametrize(
    "line", ["prompts_declared = 6000", "longest_prompt_tokens = 65", "any_weights = true"]
)
def test_what_a_site_declares_is_a_part_of_the_plan(tmp_path: Path, line: str) -> None:
    """It decides the sampling rate and the shapes: with other figures it is another release."""
    node = Deployed(tmp_path)
    before = node.zero()
    kept = [
        old
        for old in (PUBLIC + EVERYTHING).splitlines()
        if old.partition(" ")[0] != line.partition(" ")[0]
    ]
    (tmp_path / "policy.toml").write_text("\n".join([line, *kept]))
    assert not np.array_equal(node.zero(), before)


# What is declared public ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "settings", "code"),
    [
        ("prompts_declared = 5000", {}, None),
        ("prompts_declared = 2000", {}, None),
        ("prompts_declared = 1999", {}, Refusal.DECLARED),
        ("", {}, Refusal.DECLARED),
        ("prompts_declared = 5000", {"data__min_prompts": 10**6}, Refusal.DECLARED),
        ("prompts_declared = 5000", {"grpo__max_prompt_length": 64}, None),
        ("prompts_declared = 5000", {"grpo__max_prompt_length": 63}, Refusal.LONGEST_PROMPT),
        ("prompts_declared = 5000", {"grpo__max_prompt_length": 1}, Refusal.LONGEST_PROMPT),
    ],
)
def test_limits_that_a_server_chooses_are_held_against_declared_figures_alone(
    tmp_path: Path, line: str, settings: dict[str, Scalar], code: Refusal | None
) -> None:
    """The attack that was told the number and the length of a private prompt."""
    policy = PUBLIC.replace("prompts_declared = 5000", line) + EVERYTHING
    codes = []
    for name, rows in (("short", [{"prompt": "a"}]), ("long", [{"prompt": "word " * 400}])):
        node = Deployed(tmp_path / name, policy, **{"privacy__unit": "prompt"} | settings)
        node.config = make_site(tmp_path / name, policy, rows)
        codes.append(code_of(node.ask()))
    assert codes == [code, code]


@pytest.mark.parametrize(
    "change",
    [
        lambda path: (folder_beside(path) / "checked.json").unlink(),
        lambda path: (folder_beside(path) / "checked.json").write_text("{"),
    ],
    ids=["never checked", "torn"],
)
def test_prompts_that_nobody_has_checked_answer_nothing(
    tmp_path: Path, change: Callable[[Path], Any]
) -> None:
    node = Deployed(tmp_path)
    assert code_of(node.ask(1)) is None
    change(tmp_path / "prompts.jsonl")
    assert code_of(node.ask(2)) is Refusal.UNCHECKED
    assert node.charged == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_text('{"prompt": "another"}\n'),
        lambda path: approve(path, 5001),
        lambda path: path.unlink(),
    ],
    ids=["changed", "more than declared", "gone"],
)
def test_what_becomes_of_prompts_after_the_check_is_zero_under_the_noise_and_no_refusal(
    tmp_path: Path, change: Callable[[Path], Any]
) -> None:
    """A refusal that depends on prompts would tell of them."""
    node = Deployed(tmp_path)
    node.release()
    assert not node.mishaps
    change(tmp_path / "prompts.jsonl")
    node.release(2)
    assert node.charged == 2
    assert node.mishaps == {"whole contribution zero: DataError": 1}


# Frozen tensors, sent once ---------------------------------------------------------------------


def test_frozen_tensors_that_were_sent_before_are_named_by_their_hash(tmp_path: Path) -> None:
    """The release is the same, also in a process that remembers nothing and in a later round."""
    node = Deployed(tmp_path)
    node.write = lambda order: write_order(order, kept=True)
    assert code_of(node.ask()) is Refusal.BASIS
    node.write = lambda order: write_order(order, kept=False)
    assert read_kept_basis(node.ask().content) == make_adapter().basis_hash
    first, _ = node.release()
    node.write = lambda order: write_order(order, kept=True)
    np.testing.assert_array_equal(node.release()[0], first)
    assert read_kept_basis(node.ask(2).content) == make_adapter().basis_hash
    assert node.charged == 2


def test_frozen_tensors_that_changed_on_a_disk_are_not_used(tmp_path: Path) -> None:
    node = Deployed(tmp_path)
    node.ask()
    adapter = make_adapter()
    shelf = FolderShelf(folder_beside(tmp_path / "prompts.jsonl"))
    shelf.write(f"basis-{RUN}", _Basis(adapter.basis_hash, {"A": adapter.basis["A"] + 1}))
    node.write = lambda order: write_order(order, kept=True)
    assert code_of(node.ask(2)) is Refusal.BASIS
    assert node.charged == 1


def bases(node: Deployed) -> list[str]:
    found = folder_beside(node.folder / "prompts.jsonl").glob("basis-*")
    return sorted(path.name for path in found)


@pytest.mark.parametrize(
    "unready", [{"unready": AdapterError("a")}, {"unready": ModelError("m")}, {"sized_s": 1e6}]
)
def test_frozen_tensors_of_an_order_that_is_refused_take_no_disk(
    tmp_path: Path, unready: dict[str, Any]
) -> None:
    node = Deployed(tmp_path)
    for name, value in unready.items():
        setattr(node.client, name, value)
    assert code_of(node.ask()) is not None
    assert bases(node) == []


def test_frozen_tensors_of_the_last_few_runs_alone_are_kept(tmp_path: Path) -> None:
    """A server names as many runs as it likes; what a run released is never forgotten."""
    node = Deployed(tmp_path)
    runs = [f"{number:02x}" * 16 for number in range(MOST_RUNS + 3)]
    for run in runs:
        node.run = run
        assert code_of(node.ask()) is None
    assert bases(node) == [f"basis-{run}.safetensors" for run in runs[3:]]
    folder = folder_beside(tmp_path / "prompts.jsonl")
    assert len(list(folder.glob("release-*"))) == len(runs)
    node.run, node.write = runs[0], lambda order: write_order(order, kept=True)
    assert code_of(node.ask(2)) is Refusal.BASIS, "it is asked for again, and the run goes on"


def test_means_over_rounds_of_the_last_few_runs_alone_are_kept(tmp_path: Path) -> None:
    plain: dict[str, Scalar] = {"aggregation__protocol": "plain", "robust__rule": "mean"}
    node = Deployed(tmp_path, **plain, robust__momentum=0.5)
    runs = [f"{number:02x}" * 16 for number in range(MOST_RUNS + 3)]
    for run in runs:
        node.run = run
        assert code_of(node.ask()) is None
    kept = sorted(path.name for path in folder_beside(tmp_path / "prompts.jsonl").glob("momentum*"))
    assert kept == [f"momentum-{run}.safetensors" for run in runs[3:]]
    node.run = runs[0]
    assert code_of(node.ask(2)) is None, "its mean begins anew"


# One lock, and one charge -----------------------------------------------------------------------


@contextmanager
def held(node: Deployed) -> Iterator[None]:
    with locked(folder_beside(node.folder / "prompts.jsonl")):
        yield


def test_another_order_is_refused_as_busy_before_the_charge(tmp_path: Path) -> None:
    node = Deployed(tmp_path)
    node.release()
    with held(node):
        assert code_of(node.ask(2)) is Refusal.BUSY
        assert code_of(node.ask(1)) is Refusal.BUSY, "also for what lies ready"
    assert node.charged == 1
    node.release(2)


@pytest.mark.parametrize("stage", ["share", "mask", "unmask", "deal", "committee", "cosign"])
def test_later_messages_are_refused_as_busy_until_the_answer_has_left(
    tmp_path: Path, stage: str
) -> None:
    """Else their success would tell how long computing took."""
    node = Deployed(tmp_path)
    grid = node.connect()
    assert code_of(node.ask(grid=grid)) is None
    content = encode(Header(1, 1))
    message = Message(content, dst_node_id=1001, message_type=f"query.{stage}")
    with held(node):
        (reply,) = grid.send_and_receive([message])
        assert code_of(reply) is Refusal.BUSY
    (reply,) = grid.send_and_receive([message])
    assert code_of(reply) is not Refusal.BUSY


def test_the_lock_is_held_until_the_answer_leaves(tmp_path: Path) -> None:
    node, seen = Deployed(tmp_path), []

    class Looking(FakeClock):
        def wait_until(self, moment: float) -> None:
            seen.append(code_of(node.ask(2)) if not seen else None)
            super().wait_until(moment)

    node.clock = Looking()
    node.client.clock = node.clock
    node.release()
    assert seen == [Refusal.BUSY]


def _race(folder: Path, number: int, barrier: Any, results: Any) -> None:
    """One of many processes that get the same order at the same time."""

    class Nondeterministic(Client):
        def contribute(self, adapter: Any, plan: Any, round: int, key: bytes, _: Watch) -> Any:
            delta = SECRET_DELTA + number * 1e-9  # As on a GPU.
            return release_update(delta, np.full(len(METRICS), 0.5), plan, key)

    node = object.__new__(Deployed)
    node.folder, node.clock, node.runs, node.run = folder, FakeClock(), 0, RUN
    node.config = {"prompts": str(folder / "prompts.jsonl")}
    node.settings, node.client = make_settings(**SHOWN), Nondeterministic(node.clock)
    node.write = written_whole
    grid = node.connect()
    barrier.wait(60)
    reply = node.ask(grid=grid)
    code = code_of(reply)
    size = DIMENSION + len(METRICS)
    shown = None if code else read_release(reply.content, size).tobytes()
    results.put((code, shown))


@pytest.mark.slow
def test_many_processes_on_one_folder_make_one_release_for_one_charge(tmp_path: Path) -> None:
    node = Deployed(tmp_path)
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(8), context.Queue()
    workers = [
        context.Process(target=_race, args=(tmp_path, number, barrier, results))
        for number in range(8)
    ]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join(60)
    assert {code for code, _ in found} <= {None, Refusal.BUSY}
    assert len({shown for _, shown in found if shown}) == 1
    assert node.charged == 1


def test_a_lost_state_folder_is_charged_again(tmp_path: Path) -> None:
    """The same plan under another secret is another release: 12 of them cost what 12 cost."""
    node, shown = Deployed(tmp_path), []
    for _ in range(12):
        shutil.rmtree(folder_beside(tmp_path / "prompts.jsonl"))
        approve(tmp_path / "prompts.jsonl")
        shown.append(node.release()[0].tobytes())
    entries = SpendingFile(tmp_path / "spent.jsonl").read().counted
    assert len(set(shown)) == len(entries) == 12
    assert len({entry.secret for entry in entries}) == 12
    assert spent_epsilon(entries, "client", 1e-5) == pytest.approx(
        epsilon_gaussian(8.0, 12, 1e-5), abs=1e-9
    )


# No policy --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "code", "line"),
    [
        ({"reward__functions": "this:s"}, Refusal.REWARD, 'rewards = ["this:s"]'),
        ({"reward__functions": "FILE:f"}, Refusal.REWARD, "rewards = ["),
        ({"grpo__loss": "FILE:f"}, Refusal.CODE, "code = ["),
        ({"grpo__advantage": "this:s"}, Refusal.CODE, 'code = ["this:s"]'),
        ({"model__name": "some/model"}, Refusal.MODEL, 'models = ["some/model"]'),
        ({"privacy__unit": "none"}, Refusal.UNIT, "without_privacy = true"),
        ({}, Refusal.PROTOCOL, 'protocols = ["plain"]'),
        ({"aggregation__protocol": "buckets"}, Refusal.DECLARED, "prompts_declared = "),
    ],
)
def test_a_node_without_a_policy_runs_nothing_and_says_which_line_would_allow_it(
    tmp_path: Path,
    settings: dict[str, Scalar],
    code: Refusal,
    line: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    mark, evil = tmp_path / "ran", tmp_path / "foreign.py"
    evil.write_text(f"open({str(mark)!r}, 'w')\ndef f(prompts, completions, **_): return [0.0]\n")
    changed = {key: str(value).replace("FILE", str(evil)) for key, value in settings.items()}
    node = Deployed(tmp_path / "site", **changed)
    (tmp_path / "site" / "policy.toml").unlink()
    node.client = None
    with caplog.at_level(logging.WARNING):
        assert code_of(node.ask()) is code
    assert f"this line would allow it: {line}" in caplog.text
    assert not mark.exists()


def test_a_policy_names_the_code_that_may_run(tmp_path: Path) -> None:
    policy = (PUBLIC + EVERYTHING).replace('rewards = ["*"]', 'rewards = ["exact_match"]')
    node = Deployed(tmp_path, policy, reward__functions="this:s")
    assert code_of(node.ask()) is Refusal.REWARD


# What the site's own people are told ------------------------------------------------------------


def test_a_node_says_once_a_round_what_was_asked_what_it_cost_and_what_is_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node = Deployed(tmp_path / "site")
    with caplog.at_level(logging.INFO):
        for round in (1, 1, 2):
            node.release(round)
    told = [record for record in caplog.records if hasattr(record, "figures")]
    assert [record.figures["release"]["round"] for record in told] == [1, 2]
    assert "a release of unit client is asked for and charged" in told[0].getMessage()
    assert "2 of 1000 releases, epsilon " in told[1].getMessage()
    assert told[1].figures["account"]["releases"] == 2
    assert json.loads(json.dumps(told[1].figures))
    standing, last = Site.open(tmp_path / "site" / "policy.toml").seen_standing()
    assert standing.units, "who looks finds it added up"
    assert (last.round if last else 0) == 2


def test_what_cannot_be_told_keeps_no_release_and_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Site) -> None:
        raise OSError("no space left on device")

    node = Deployed(tmp_path / "site")
    with monkeypatch.context() as full:
        full.setattr(Site, "standing", broken)
        release, seconds = node.release()
    assert (seconds, node.charged) == (AFTER_S, 1)
    np.testing.assert_array_equal(release, node.release()[0])
