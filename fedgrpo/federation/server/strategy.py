"""The server's side: a Flower strategy that aggregates privately, robustly and securely."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar, cast

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from fedgrpo.federation.protocols import server_side
from fedgrpo.federation.protocols.base import Round, RoundOutcome
from fedgrpo.federation.server.checkpoint import ServerState
from fedgrpo.federation.server.cohort import drawn
from fedgrpo.federation.server.evaluation import Evaluator
from fedgrpo.federation.server.journal import Journal
from fedgrpo.federation.server.round import (
    RoundClock,
    apply_aggregate,
    count_reasons,
    make_entry,
    make_row,
)
from fedgrpo.federation.wire.codec import Header
from fedgrpo.federation.wire.exchange import (
    Collection,
    among,
    as_it_is,
    round_trip,
    wait_for_nodes,
)
from fedgrpo.federation.wire.link import Link
from fedgrpo.federation.wire.messages import (
    TRAIN,
    TrainOrder,
    read_adapter,
    write_adapter,
    write_order,
)
from fedgrpo.federation.wire.metered import MeteredGrid
from fedgrpo.federation.wire.participants import keeping
from fedgrpo.federation.wire.plans import last_round, release_plan
from fedgrpo.ground.callbacks import tell
from fedgrpo.ground.crypto import new_key
from fedgrpo.ground.errors import CohortError, RunError
from fedgrpo.ground.records import Evaluation
from fedgrpo.ledger import Entry, Ledger
from fedgrpo.model.adapter import AdapterState
from fedgrpo.privacy.accounting.guarantees import check_budget
from fedgrpo.privacy.release import ReleasePlan
from fedgrpo.report.records import RoundRow, best_evaluation
from fedgrpo.report.writer import WAITING, RunWriter
from fedgrpo.settings import Settings
from fedgrpo.settings.protocols import protocol_of
from fedgrpo.settings.protocols.base import trimmed_by

LOG = logging.getLogger(__name__)

MAX_SKIPPED = 3
"""Rounds in a row that may be skipped before the run gives up."""

EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]

T = TypeVar("T")


@dataclass(frozen=True)
class _Run:
    """What :meth:`FedGRPO.start` was called with."""

    grid: Grid
    last: int
    timeout: float
    train_config: ConfigRecord
    evaluate_config: ConfigRecord
    evaluate_fn: EvaluateFn | None
    result: Result = field(default_factory=Result)


class FedGRPO(Strategy):
    """Federated GRPO over Flower.

    One round: clients train and keep their releases; participants are drawn into buckets and summed
    under masks; the bucket means are combined by the robust rule, or a committee of clients applies
    it to shares; the server's optimiser applies the result. A bad reply costs its node the round. A
    round in which too few are left is skipped, and the run goes on unless that happens three times
    in a row.

    Adversary: up to ``robust.trim`` clients that send anything, and a server that is honest but
    curious. What each party can learn is said where it could: :mod:`fedgrpo.secure.masking` and
    :mod:`fedgrpo.privacy.accounting.guarantees`.

    Subclass it to change who is asked (:meth:`configure_train`), what becomes of the result
    (:meth:`aggregate_train`), or to let clients evaluate (:meth:`configure_evaluate`).

    Parameters
    ----------
    settings:
        The run's settings.
    evaluator:
        Measures the global adapter on held-out prompts, before round 1, every ``evaluation.every``
        rounds and after the last.
    writer:
        Where rows and phases go.
    checkpoint:
        File to write before and after each round, and to resume from if it exists.
    secret:
        32 bytes from which the server's randomness is derived, the same when a run is resumed. None
        draws fresh ones: a resumed run then repeats nothing.
    ledger:
        Where each round is entered; needs a checkpoint.
    callbacks:
        Told of each round that is over: see :class:`fedgrpo.ground.callbacks.Callback`.
    keep_best:
        Called with the strategy when its adapter is the best so far on held-out prompts, sampled,
        and after a resume at such a round again.

    Attributes
    ----------
    state:
        Adapter, optimiser and progress; None before :meth:`start`.
    history:
        What each round came to, oldest first, round 0 (before training) included; of a resumed run
        with a writer, all of it. A skipped round has a reason.
    train_s, evaluate_s:
        Seconds of this process spent waiting for local training, and in evaluation.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        evaluator: Evaluator | None = None,
        writer: RunWriter | None = None,
        checkpoint: Path | None = None,
        secret: bytes | None = None,
        ledger: Ledger | None = None,
        callbacks: Iterable[object] = (),
        keep_best: Callable[[FedGRPO], None] | None = None,
    ) -> None:
        self.settings = settings
        self.state: ServerState | None = None
        self.history: tuple[RoundRow, ...] = ()
        self.train_s = self.evaluate_s = 0.0
        self._evaluator, self._writer = evaluator, writer
        self._callbacks, self._keep_best = tuple(callbacks), keep_best
        self._secret = secret or new_key()
        self._journal = Journal(
            settings, self._secret, writer=writer, checkpoint=checkpoint, ledger=ledger
        )
        self._protocol = server_side(settings)(
            settings, self._secret, self._journal.openings(), ledger
        )
        self._run: _Run | None = None
        self._round: Round | None = None
        self._basis_at: frozenset[int] = frozenset()

    def shortened(self, by: int) -> AbstractContextManager[None]:
        """See :meth:`fedgrpo.federation.protocols.base.ServerSide.shortened`."""
        return self._protocol.shortened(by)

    def summary(self) -> None:
        """Log what this strategy does."""
        s, protocol = self.settings, protocol_of(self.settings)
        size = protocol.summed(s, s.federation.min_clients)
        over = f"groups of at least {size}" if size > 1 else "single clients"
        LOG.info(
            f"FedGRPO: {s.rounds} rounds, {s.robust.rule} (trim {trimmed_by(s)}) over {over} "
            f"({protocol.name}), privacy unit {s.privacy.unit}, "
            f"noise by the {protocol.noise_place(s)}, {s.server.optimiser}"
        )

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int | None = None,
        timeout: float | None = None,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: EvaluateFn | None = None,
    ) -> Result:
        """Run the rounds that are left.

        Parameters
        ----------
        grid:
            Flower's connection to the nodes.
        initial_arrays:
            The adapter to begin with, from :func:`fedgrpo.federation.wire.messages.write_adapter`.
            A checkpoint takes its place.
        num_rounds:
            Stop after this round; None runs all that the settings name.
        timeout:
            Seconds for local training, and for federated evaluation; None takes
            ``federation.round_timeout_s``.
        train_config, evaluate_config:
            Passed to :meth:`configure_train` and :meth:`configure_evaluate`, for subclasses.
        evaluate_fn:
            Called with the global adapter before the first round and after each.

        Returns
        -------
        Result
            The final adapter, and the metrics of the rounds run by this process.

        Raises
        ------
        PrivacyError
            If the settings ask for more epsilon than they allow.
        CohortError
            If too few nodes come online in time, or three rounds in a row are skipped.
        RunError
            If the checkpoint belongs to another run.
        LedgerError
            If the ledger is not the checkpoint's.
        """
        check_budget(self.settings)
        last = last_round(self.settings, num_rounds)
        state, begins = self._journal.open(read_adapter(initial_arrays))
        self.state = state.patient() if state.progress.in_a_row >= MAX_SKIPPED else state
        self.history = tuple(self._writer.rows()) if self._writer else ()
        self._meter = MeteredGrid(grid)
        self._run = _Run(
            cast(Grid, self._meter),
            last,
            timeout or self.settings.federation.round_timeout_s,
            train_config or ConfigRecord(),
            evaluate_config or ConfigRecord(),
            evaluate_fn,
        )
        self.summary()
        if begins:
            self._close_round(self._clock(0), RoundOutcome("before training"), state.adapter)
        else:
            # A kill may have come between the round and its best adapter.
            self._keep_if_best()
        self._run_rounds(range(state.progress.round, last + 1))
        self._run.result.arrays = write_adapter(self._state.adapter)
        return self._run.result

    @property
    def ended(self) -> bool:
        """Whether the ledger names the files of the final adapter already."""
        return self._journal.ended

    @property
    def root(self) -> str:
        """``ROOT:SIZE`` of the ledger so far; empty without one."""
        return self._journal.root

    def end(self, files: dict[str, str]) -> None:
        """Enter the files of the final adapter into the ledger, once.

        Parameters
        ----------
        files:
            SHA-256 (hex) by path in the run directory.
        """
        self._journal.end(self._state, files)
        self._close()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Wait for enough nodes and order those that are drawn among them, or all, to train.

        Parameters
        ----------
        server_round:
            Round number, from 1.
        arrays:
            The global adapter.
        config:
            For subclasses. Clients take everything from the run's settings.
        grid:
            Flower's connection to the nodes.

        Raises
        ------
        CohortError
            If fewer than ``federation.min_clients``, or ``federation.cohort``, are online after
            ``federation.wait_s`` seconds.
        SettingsError
            If the protocol cannot trim so many; nobody has been charged for the round.
        """
        federation = self.settings.federation
        # As many as are drawn must be there, or those who come first would always be.
        least = federation.cohort or federation.min_clients
        online = wait_for_nodes(grid, least, federation.wait_s)
        secret, run = self._secret, self._journal.run
        nodes = drawn(online, federation.cohort, secret, run, server_round)
        protocol_of(self.settings).check_cohort(self.settings, len(nodes), "clients asked")
        header = Header(grid.run.run_id, server_round)
        order = TrainOrder(
            header,
            run,
            read_adapter(arrays),
            self._state.progress.clipping_norm,
            self.settings.fingerprint(),
            self._state.progress.radius,
        )
        link = Link(grid, header, _started(self._run).timeout)
        kept = self._basis_at if order.adapter.basis else frozenset()
        content = {known: write_order(order, kept=known) for known in {n in kept for n in nodes}}
        return [link.message(TRAIN, node, content[node in kept]) for node in nodes]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Bring the participants' releases together, combine them and step the adapter.

        Parameters
        ----------
        server_round:
            Round number, from 1.
        replies:
            To the messages of :meth:`configure_train`. A node whose reply is missing is dropped.
            Under ``plain`` their vectors have been put away already.

        Returns
        -------
        tuple
            The next adapter and the round's metrics; two None if the round is skipped.
        """
        current = _started(self._round)
        arrived = among(current.replies, replies)
        self._basis_at = keeping(arrived, current.adapter.basis_hash)
        outcome, failures = self._protocol.aggregate(current, arrived)
        reasons = count_reasons(failures.values())
        if self._writer:
            self._writer.dropped(server_round, failures)
        if not outcome.released:
            self.state = self._state.refunded()
        if outcome.aggregate is None:
            nodes = f" ({reasons})" if reasons else ""
            current.outcome = replace(outcome, reason=outcome.reason + nodes, dropped=len(failures))
            told = f"round skipped: {current.outcome.reason}"
            LOG.warning(told, extra={"code": "round-skipped"})
            return None, None
        if dropped := arrived.asked - outcome.finished:
            told = f"{dropped} of {arrived.asked} nodes dropped: {reasons}"
            LOG.warning(told, extra={"code": "node-dropped"})
        current.outcome = replace(outcome, dropped=dropped)
        with current.phase("aggregate"):
            self.state = apply_aggregate(
                self.settings, self._state, outcome.aggregate, outcome.finished
            )
        return write_adapter(self.state.adapter), MetricRecord(dict(outcome.aggregate.metrics))

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask no client to evaluate: its figures would leave in clear."""
        return []

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Aggregate nothing, as nobody was asked."""
        return None

    @property
    def _state(self) -> ServerState:
        return _started(self.state)

    def _clock(self, number: int) -> RoundClock:
        return RoundClock(number, _started(self._run).last, self._writer)

    def _run_rounds(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            outcome = self._run_round(number)
            if self._state.progress.in_a_row == MAX_SKIPPED:
                raise CohortError(
                    f"{MAX_SKIPPED} rounds in a row were skipped; the last: {outcome.reason}",
                    cure="see the nodes' own logs; start more nodes, or raise "
                    "federation.round_timeout_s or federation.reply_timeout_s; "
                    "the same command resumes",
                )

    def _run_round(self, number: int) -> RoundOutcome:
        run, state, clock = _started(self._run), self._state, self._clock(number)
        progress, arrays = state.progress, write_adapter(state.adapter)
        self._round = Round(
            clock.phase,
            Link(
                run.grid,
                Header(run.grid.run.run_id, number),
                self.settings.federation.reply_timeout_s,
            ),
            release_plan(
                self.settings, state.adapter.vector.size, progress.clipping_norm, progress.radius
            ),
            state.adapter,
            repeated=state.begun,
            run=self._journal.run,
            last=state.last,
        )
        clock.announce(WAITING)
        orders = list(self.configure_train(number, arrays, run.train_config, run.grid))
        self.state = state.charged()
        self._journal.begin_round(self.state)
        with clock.phase("train"):
            self._round.replies = round_trip(
                run.grid, orders, run.timeout, self._protocol.collection(self._round)
            )
        replies = list(self._round.replies.messages.values())
        moved, metrics = self.aggregate_train(number, replies)
        # What aggregate_train returns decides, so that a subclass may change it.
        if moved is not None:
            self.state = replace(self._state, adapter=read_adapter(moved))
        if metrics is not None:
            run.result.train_metrics_clientapp[number] = metrics
        self._evaluate_on_nodes(clock)
        outcome = replace(self._round.outcome, cohort=len(orders))
        self._close_round(clock, outcome, state.adapter, self._round.plan)
        return self._round.outcome

    def _evaluate_on_nodes(self, clock: RoundClock) -> None:
        """Run federated evaluation, if a subclass asks for it."""
        run, number = _started(self._run), clock.round
        orders = list(
            self.configure_evaluate(
                number, write_adapter(self._state.adapter), run.evaluate_config, run.grid
            )
        )
        if not orders:
            return
        with clock.phase("evaluate"):
            replies = round_trip(run.grid, orders, run.timeout, Collection(as_it_is))
        metrics = self.aggregate_evaluate(number, list(replies.messages.values()))
        if metrics is not None:
            run.result.evaluate_metrics_clientapp[number] = metrics

    def _evaluate(self, clock: RoundClock) -> Evaluation | None:
        """Evaluate on the server, if it is time to."""
        run, every = _started(self._run), self.settings.evaluation.every
        evaluation = None
        with clock.phase("evaluate"):
            if self._evaluator and (clock.round % every == 0 or clock.round == run.last):
                adapter, at_end = self._state.adapter, clock.round in (0, run.last)
                evaluation = self._evaluator.evaluate(adapter, at_end=at_end)
            if run.evaluate_fn:
                metrics = run.evaluate_fn(clock.round, write_adapter(self._state.adapter))
                if metrics is not None:
                    run.result.evaluate_metrics_serverapp[clock.round] = metrics
        return evaluation

    def _close_round(
        self,
        clock: RoundClock,
        outcome: RoundOutcome,
        before: AdapterState,
        plan: ReleasePlan | None = None,
    ) -> None:
        """Evaluate, and move on to the next round in one durable step."""
        evaluation = self._evaluate(clock)
        self.train_s += clock.seconds.get("train", 0.0)
        self.evaluate_s += clock.seconds.get("evaluate", 0.0)
        state = self._state
        norm = plan.clipping_norm if plan else state.progress.clipping_norm
        clock.bytes = self._meter.take()
        row = make_row(self.settings, state, outcome, clock, norm, evaluation)
        if plan:
            entry: Entry = make_entry(self.settings, before, state, outcome, plan)
            skipped = bool(outcome.reason)
            self.state = state.finished(clock.round, outcome.dropped, skipped=skipped)
        else:
            entry = self._journal.head(before)
        if evaluation and self._writer:
            self._writer.samples(clock.round, evaluation.samples)
        self._journal.commit(self._state, row, entry)
        self.history += (row,)
        self._keep_if_best()
        self._close()
        tell(self._callbacks, "on_round", row)

    def _keep_if_best(self) -> None:
        """Keep the adapter if no other was better; only now, as readers get what is durable."""
        measured = any(row.sampled is not None for row in self.history)
        if not (self._keep_best and measured):
            return
        if best_evaluation(self.history).round == self._state.progress.round - 1:
            self._keep_best(self)

    def _close(self) -> None:
        """Let the protocol do what is left once a round is in the ledger."""
        if self._round:
            self._protocol.close(self._round.link)


def _started(value: T | None) -> T:
    if value is None:
        raise RunError("the strategy has not started", cure="call start first")
    return value
