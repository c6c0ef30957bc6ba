"""A node's answer to the order to train: first whether, then what, and always at one time.

Adversary: a server that chooses order and settings, and reads the answer and the time it takes.

* Until the release is charged for, no prompt is read, and an order may be refused by a code. Where
  the client was asked before, the code leaves at the time of an answer: how long a process takes to
  say what cannot be loaded tells whether it has loaded it already, or died of an earlier order.
* From then on there is one kind of answer, the release. Whatever goes wrong, it is zero under the
  full noise, which nobody can tell from another release. (Without a privacy unit nothing is hidden,
  and a failure is a code.)
* The answer leaves ``answer_after_s`` after its order came, whether it was computed, computed
  again, kept from before, or zero. Meanwhile the node is locked.

What is left: a machine that dies. Its silence can be made to depend on a prompt only by a prompt
that kills the machine itself.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from flwr.app import Context, Message, RecordDict
from numpy.typing import NDArray

from fedgrpo.attacks.knowledge import Insight
from fedgrpo.federation.node.answers import log_failure
from fedgrpo.federation.node.clients.interfaces import (
    ClientFactory,
    ElsewhereError,
    PreparingFactory,
    TellingFactory,
)
from fedgrpo.federation.node.clients.watch import Watch
from fedgrpo.federation.node.clock import Clock, LateError
from fedgrpo.federation.node.faults import (
    attack,
    honest_vectors,
    knowledge,
    simulated_faults,
    way,
)
from fedgrpo.federation.node.gate import Gate
from fedgrpo.federation.protocols import node_side
from fedgrpo.federation.protocols.base import Answering
from fedgrpo.federation.state.memory import NodeMemory
from fedgrpo.federation.state.node_store import Ask, NodeStore
from fedgrpo.federation.wire.codec import Header, check_header, decode, put
from fedgrpo.federation.wire.messages import KeptBasis, TrainOrder, read_kept_basis
from fedgrpo.federation.wire.plans import is_single, order_digest, release_plan
from fedgrpo.ground.errors import BoundsError, PrivacyError, SettingsError, TurnError
from fedgrpo.ground.mishaps import pass_on_interrupt
from fedgrpo.privacy.release import ReleasePlan, zero_release
from fedgrpo.robust.momentum import Carried, carried
from fedgrpo.robust.norm_checked import inside
from fedgrpo.settings import Settings
from fedgrpo.site.declared import Declared, declared_by
from fedgrpo.site.refusals import Refusal, refused
from fedgrpo.site.site import is_simulated

LOG = logging.getLogger(__name__)
"""The node's own log. Nothing here reaches the server."""

_ALL_ZERO = "whole contribution zero"
_MOMENTUM = "momentum-"

Release = NDArray[np.float64]


@dataclass(frozen=True)
class Node:
    """What a node brings to every order.

    Attributes
    ----------
    factory:
        Makes its client.
    minimum_bucket:
        Least number of clients among which its update may be hidden.
    clock:
        By which its answers leave.
    """

    factory: ClientFactory
    minimum_bucket: int
    clock: Clock


@dataclass(frozen=True)
class Task:
    """One order to train, under way.

    Attributes
    ----------
    came:
        When it came, on the node's clock.
    """

    context: Context
    settings: Settings
    order: TrainOrder
    plan: ReleasePlan
    store: NodeStore
    gate: Gate
    declared: Declared
    came: float

    @property
    def ask(self) -> Ask:
        """The release that is asked for."""
        return Ask(self.order.run, self.order.header.round, self.gate.request.plan)

    @property
    def digest(self) -> bytes:
        """Digest of the order, on which all whose releases are summed must agree."""
        plan = self.plan
        return order_digest(self.settings, self.order.adapter, plan.clipping_norm, plan.radius)

    @property
    def keeps_basis(self) -> bool:
        """Whether frozen tensors are kept, so as not to be sent again. Simulated nodes are near."""
        return bool(self.order.adapter.basis) and not is_simulated(self.context.node_config)

    @property
    def memory(self) -> NodeMemory:
        """What the node keeps between messages."""
        return NodeMemory(self.context.state)

    @property
    def answer_at(self) -> float:
        """When the answer leaves."""
        return self.came + self.declared.answer_after_s

    @property
    def deadline(self) -> float:
        """When computing must be over; infinity where the answer waits for it."""
        return self.came + self.declared.work_s


def train(message: Message, context: Context, node: Node) -> RecordDict:
    """Train, keep the release, and answer as the protocol has it: with the release or a promise."""
    task = _task(message, context, node.clock.now())
    task.gate.check()
    faults = simulated_faults(task.settings, context.node_config, task.ask.round)
    if faults.drops:
        raise refused(Refusal.DROPPED_OUT, "simulated dropout")
    with task.store.locked():
        task.memory.check_turn(task.ask.round, task.order.adapter)
        kept = task.store.released(task.ask)
        try:
            paid = _paid(task, node, kept)
            release = _release(task, node, paid, byzantine=faults.byzantine)
            if faults.late:
                raise refused(Refusal.DROPPED_OUT, "simulated straggler: trained, and too late")
            return _reply(task, release, node.minimum_bucket)
        finally:
            node.clock.wait_until(task.answer_at)


# Before the charge -------------------------------------------------------------------------------


def _task(message: Message, context: Context, came: float) -> Task:
    """Read an order, and hold it against the node's own settings."""
    settings = Settings.from_run_config(context.run_config)
    store = NodeStore.of(context, settings)
    order = _with_basis(decode(TrainOrder, message.content), message.content, store)
    check_header(message.content, order.header)
    _check_run(order.header, context, settings.rounds)
    _check_settings(order.fingerprint, settings)
    if not (math.isfinite(order.clipping_norm) and math.isfinite(order.radius)):
        raise BoundsError("clipping norm or radius is not finite", cure="start from sound settings")
    plan = release_plan(settings, order.adapter.vector.size, order.clipping_norm, order.radius)
    declared = declared_by(context.node_config, settings)
    gate = Gate.at(context.node_config, order, plan, store, settings, declared)
    return Task(context, settings, order, plan, store, gate, declared, came)


def _with_basis(order: TrainOrder, content: RecordDict, store: NodeStore) -> TrainOrder:
    """The order with the frozen tensors that this node has kept, where only their hash came."""
    if not (wanted := read_kept_basis(content)):
        return order
    basis = store.basis(order.run, wanted)
    if basis is None:
        raise refused(Refusal.BASIS, "the run's frozen basis is not, or no longer, on this disk")
    adapter = replace(order.adapter, basis=basis)
    if adapter.basis_hash != wanted:
        raise refused(Refusal.BASIS, "the frozen basis on this disk is not what was kept")
    return replace(order, adapter=adapter)


def _check_run(header: Header, context: Context, rounds: int) -> None:
    if header.run_id != context.run_id:
        raise TurnError(
            f"message of run {header.run_id}, this is run {context.run_id}",
            cure="let each run's server talk to its own nodes",
        )
    if not 1 <= header.round <= rounds:
        raise TurnError(
            f"round {header.round} is beyond rounds = {rounds}, for which epsilon was stated",
            cure="agree on more rounds before the run",
        )


def _check_settings(theirs: str, settings: Settings) -> None:
    if theirs != (ours := settings.fingerprint()):
        raise SettingsError(
            f"the server runs settings {theirs[:12]}, this node was given {ours[:12]}",
            cure="run the same version of the app bundle everywhere",
        )


@dataclass(frozen=True)
class Paid:
    """What is known once a release is charged for.

    Attributes
    ----------
    kept:
        The release itself, if it was made before.
    in_time:
        Whether all the time is left that the order can take by public figures.
    """

    kept: Release | None
    in_time: bool


def _paid(task: Task, node: Node, kept: Release | None) -> Paid:
    """Refuse the order, or charge for its release."""
    in_time = kept is not None or _is_in_time(task, node)
    if not (in_time or task.gate.is_charged()):
        raise refused(
            Refusal.ANSWER_TIME,
            f"answer_after_s = {task.declared.answer_after_s:g} is shorter than the order can take",
            cure="raise answer_after_s in this site's policy, as 'fedgrpo policy check' proposes",
        )
    if task.keeps_basis:
        # What no model here has been held against would only fill the disk.
        task.store.keep_basis(task.order.run, task.order.adapter)
    _charge(task)
    return Paid(kept, in_time)


def _is_in_time(task: Task, node: Node) -> bool:
    """Prepare, and say whether the most that the order can cost fits into the time that is left."""
    if not isinstance(node.factory, PreparingFactory):
        return node.clock.now() <= task.deadline
    sized = node.factory.prepare(
        task.settings, task.context.node_config, task.order.adapter, task.declared
    )
    return node.clock.now() + sized <= task.deadline


def _charge(task: Task) -> None:
    """Open the round and pay for it: from here on, the answer is a release."""
    task.memory.begin_round(task.ask.round, task.order.adapter)
    order, plan = task.order, task.plan
    task.memory.keep_plan(
        order.run,
        order.fingerprint,
        (plan.dimension, plan.clipping_norm, plan.radius),
        task.digest,
    )
    task.gate.charge()


# After the charge --------------------------------------------------------------------------------


def _release(task: Task, node: Node, paid: Paid, *, byzantine: bool) -> Release:
    """The release that was kept, or a new one that is kept from now on."""
    if paid.kept is not None:
        return paid.kept
    release = _held(task, _steadied(task, node, _computed(task, node, in_time=paid.in_time)))
    if byzantine:
        release = _attacked(task, node, release)
    task.store.keep(task.ask, release)
    return release


def _steadied(task: Task, node: Node, release: Release) -> Release:
    """Put the mean over rounds in the place of the update: of what is noised already, or never is.

    It is kept before the release is, with the one before: after a kill in between, the round is
    repeated from there.
    """
    decay = task.settings.robust.momentum
    if not decay or isinstance(node.factory, TellingFactory):  # Which does so for everybody.
        return release
    name, cut = f"{_MOMENTUM}{task.ask.run}", task.plan.dimension
    kept = task.store.read_note(Carried, name)
    now = carried(kept, task.ask.round, release[:cut], decay)
    task.store.write_note(name, now)
    task.store.thin_notes(_MOMENTUM)
    return np.concatenate([now.mean, release[cut:]])


def _held(task: Task, release: Release) -> Release:
    """Project a release onto the round's ball, where single vectors are checked against it."""
    plan = task.plan
    if not (plan.radius and is_single(task.settings)):
        return release
    return inside(release, plan.dimension, plan.radius, plan.figures_norm)


def _computed(task: Task, node: Node, *, in_time: bool) -> Release:
    """What the client contributes; zero with the full noise where it fails or comes too late."""
    mishaps: Counter[str] = Counter()
    release = _in_time(task, node, mishaps) if in_time else None
    if not in_time:
        mishaps[f"{_ALL_ZERO}: a process died, and too little time is left to compute again"] += 1
    # A copy, as work that was left behind goes on counting.
    task.gate.count(dict(mishaps))
    if release is not None:
        return release
    if task.plan.unit == "none":
        raise refused(Refusal.FAILED, "without a privacy unit nothing can stand for a release")
    return zero_release(task.plan, task.store.key(task.ask))


def _in_time(task: Task, node: Node, mishaps: Counter[str]) -> Release | None:
    """What the client contributes before the deadline; None if it cannot."""
    try:
        release = node.clock.run(lambda: _contributed(task, node, mishaps), task.deadline)
        if node.clock.now() > task.deadline:
            raise LateError
    except LateError:
        mishaps[f"{_ALL_ZERO}: it came too late"] += 1
    except BaseException as error:
        pass_on_interrupt(error)
        log_failure("contribution failed", error, "contribution-lost")
        kind = error.kind if isinstance(error, ElsewhereError) else type(error).__name__
        mishaps[f"{_ALL_ZERO}: {kind}"] += 1
    else:
        return release
    return None


def _contributed(task: Task, node: Node, mishaps: Counter[str]) -> Release:
    """Have the client contribute. From here on, prompts are read."""
    own = not is_simulated(task.context.node_config)
    watch = Watch(task.store, task.ask.plan, task.deadline, durable=own)
    key, round_ = task.store.key(task.ask), task.ask.round
    try:
        task.gate.check_unchanged()
        client = node.factory(task.settings, task.context.node_config)
        release = client.contribute(task.order.adapter, task.plan, round_, key, watch)
    finally:
        mishaps.update(watch.mishaps)
    return _checked(release, task.plan.size)


def _checked(release: Release, size: int) -> Release:
    """Refuse a release that a client of one's own making got wrong."""
    if release.dtype != np.float64 or release.shape != (size,) or not np.isfinite(release).all():
        raise PrivacyError(
            f"the client's release is {release.dtype} of shape {release.shape} with "
            f"{int(np.count_nonzero(~np.isfinite(release)))} non-finite values, expected finite "
            f"float64 of shape ({size},)",
            cure="return what ReleasePlan asks for",
        )
    return release


def _attacked(task: Task, node: Node, release: Release) -> Release:
    """What a simulated attacker sends in the place of its release."""
    ask, adapter, plan = task.ask, task.order.adapter, task.plan
    met = task.store.adapters(ask, adapter.vector)
    known = knowledge(
        task.settings,
        plan,
        ask.round,
        _insight(task, node, release),
        first=task.store.first_release(ask, release),
        step=None if met.before is None else way(adapter, met.before, release.size),
        way=way(adapter, met.first, release.size),
    )
    return attack(task.settings, release, plan.bound, known)


def _insight(task: Task, node: Node, release: Release) -> Insight:
    """What attackers are told of others: all, or what those of this process have met."""
    if isinstance(node.factory, TellingFactory):
        told = node.factory.insight(task.order.adapter, task.plan, task.ask.round)
        own, honest = (
            np.reshape([_held(task, one) for one in rows], rows.shape)
            for rows in (told.own, told.honest)
        )
        return replace(told, own=own, honest=honest)
    order = f"{task.ask.run}/{task.ask.round}/".encode() + task.digest
    own = np.stack(honest_vectors(order, task.context.node_config, release))
    return Insight(own, honest=own[:0], last=None)


def _reply(task: Task, release: Release, minimum_bucket: int) -> RecordDict:
    """Write what leaves, and keep what later messages of the round need."""
    answering = Answering(
        task.order.header,
        task.context,
        task.settings,
        task.store,
        task.ask,
        task.plan,
        task.digest,
        minimum_bucket,
    )
    content = node_side(task.settings).answer(answering, release)
    if task.keeps_basis:
        put(content, KeptBasis(task.order.adapter.basis_hash))
    return content
