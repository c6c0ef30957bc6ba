"""The data holder's side: a Flower ClientApp with one handler for each message of a round.

Adversary: a server that may send anything. What a node never does, whatever it is asked: release
twice for one round, release under a plan other than the settings', release into a roster below its
own minimum, release unmasked unless its operator allows it, let text of code that saw prompts leave
in an error, or go beyond its site's policy.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from fedgrpo.errors import FedGRPOError, PolicyError, ProtocolError, SettingsError
from fedgrpo.federation import messages
from fedgrpo.federation.memory import NodeMemory
from fedgrpo.federation.messages import Header
from fedgrpo.policy.refusals import Refusal
from fedgrpo.secure.encoding import encode, fraction_bits
from fedgrpo.secure.masking import MaskingClient
from fedgrpo.settings import Scalar, Settings

if TYPE_CHECKING:
    # Loaded by the train handler only: a deployed node starts a process for every message.
    from fedgrpo.federation.interfaces import Holder, HolderFactory
    from fedgrpo.federation.node_store import Ask, NodeStore
    from fedgrpo.privacy.release import ReleasePlan

LOG = logging.getLogger(__name__)
"""The node's own log. Nothing here reaches the server."""

MINIMUM_BUCKET = 3
"""Least bucket that a node accepts unless told otherwise: of a sum of two, each knows a half."""

TRUST = "trust-server"
"""Key of a node's own configuration that allows the plain protocol."""

APP_RAISED = 2
"""Flower's error code for an app that failed."""

Handler = Callable[[Message, Context], RecordDict]


def make_client_app(
    holder_factory: HolderFactory | None = None, *, minimum_bucket: int = MINIMUM_BUCKET
) -> ClientApp:
    """Build the ClientApp of a data holder.

    Parameters
    ----------
    holder_factory:
        ``(settings, node_config) -> Holder``. None takes
        :func:`fedgrpo.federation.holder.local_holder`, which trains on this node's prompts.
    minimum_bucket:
        Least number of holders among which this one's update may be hidden. The run's
        ``secure.bucket_size`` counts too, whichever is larger.

    Returns
    -------
    ClientApp
        Answers ``train``; ``query.share``, ``query.mask`` and ``query.unmask`` in buckets; and
        ``query.deal``, ``query.committee`` and ``query.cosign`` over a committee.
    """
    app = ClientApp()
    factory = holder_factory or _local_holder

    def train(message: Message, context: Context) -> RecordDict:
        return _train(message, context, factory, minimum_bucket)

    app.train()(_answering(train))
    app.query("share")(_answering(_share))
    app.query("mask")(_answering(_mask))
    app.query("unmask")(_answering(_unmask))
    app.query("deal")(_answering(_deal))
    app.query("committee")(_answering(_committee))
    app.query("cosign")(_answering(_cosign))
    return app


def _local_holder(settings: Settings, node_config: Mapping[str, Scalar]) -> Holder:
    from fedgrpo.federation.holder import local_holder

    return local_holder(settings, node_config)


def _train(message: Message, context: Context, factory: HolderFactory, minimum: int) -> RecordDict:
    """Train, keep the release, and answer with ephemeral public keys and a tag only.

    What was released by the same plan before is released again, without training. Under the plain
    protocol, answer with the release itself.
    """
    from fedgrpo.federation import committee_client
    from fedgrpo.federation.faults import SimulatedDropoutError, simulated_faults
    from fedgrpo.federation.gate import Gate
    from fedgrpo.federation.node_store import Ask, NodeStore
    from fedgrpo.federation.plans import order_digest, release_plan

    settings = Settings.from_run_config(context.run_config)
    order = messages.read_order(message.content)
    _check_run(order.header, context, settings.rounds)
    _check_settings(order.fingerprint, settings)
    plan = release_plan(settings, order.adapter.vector.size, order.clipping_norm)
    memory, round_ = NodeMemory(context.state), order.header.round
    gate = Gate.at(context.node_config, settings, order, plan)
    gate.check()
    if gate.site is None:
        _check_trust(settings, context.node_config)
    memory.begin_round(round_, order.adapter)
    digest = order_digest(settings, order.adapter, plan.clipping_norm)
    memory.keep_plan(order.run, order.fingerprint, plan.dimension, plan.clipping_norm, digest)
    faults = simulated_faults(settings, context.node_config, round_)
    if faults.drops:
        raise SimulatedDropoutError("simulated dropout")
    store, ask = NodeStore.of(context, settings), Ask(order.run, round_, gate.request.plan)
    release = store.released(ask)
    gate.charge()
    if release is None:
        holder = factory(settings, context.node_config)
        release = holder.contribute(order.adapter, plan, round_, store.key(ask))
        release = _checked(release, plan.size)
        if faults.byzantine:
            release = _attacked(settings, release, plan, order, store, ask)
        store.keep(ask, release)
    tag = store.tag(ask, release)
    if settings.aggregation.protocol == "plain":
        return messages.write_release(order.header, release, tag)
    if settings.aggregation.protocol == "committee":
        return committee_client.finish(order.header, context, settings, ask, release)
    least = max(minimum, settings.secure.bucket_size)
    masks = MaskingClient.open(context.run_id, round_, context.node_id, least, order=digest)
    memory.keep(release, plan.bound, masks)
    return messages.write_keys(order.header, masks.public_keys, tag)


def _attacked(
    settings: Settings,
    release: NDArray[np.float64],
    plan: ReleasePlan,
    order: messages.TrainOrder,
    store: NodeStore,
    ask: Ask,
) -> NDArray[np.float64]:
    """What a simulated attacker sends in the place of its release."""
    from fedgrpo.federation.faults import attack

    before = store.adapter_before(ask, order.adapter.vector)
    return attack(settings, release, plan.bound, order.adapter, before, ask.round)


def _share(message: Message, context: Context) -> RecordDict:
    """Deal encrypted shares of this round's secrets to the bucket mates."""
    memory, header, _ = _open_round(message, context)
    roster = messages.read_roster(message.content)
    with memory.masks() as client:
        ciphertexts = client.share(roster)
    memory.members = len(roster.members)
    return messages.write_ciphertexts(header, ciphertexts)


def _mask(message: Message, context: Context) -> RecordDict:
    """Send the release under masks, in an encoding that the server has no say in."""
    memory, header, _ = _open_round(message, context)
    ciphertexts = messages.read_ciphertexts(message.content)
    with memory.masks() as client:
        release, bound = memory.take_release(), memory.bound
        values = encode(release, fraction_bits(memory.members, bound), bound)
        masked = client.mask(ciphertexts, values)
    return messages.write_masked(header, masked)


def _unmask(message: Message, context: Context) -> RecordDict:
    """Answer once with shares of survivors' seeds or of dropped members' keys."""
    memory, header, _ = _open_round(message, context)
    order = messages.read_unmask(message.content)
    with memory.masks() as client:
        revealed = client.reveal(
            header.run_id, header.round, order.bucket, order.survivors, order.dropped
        )
    return messages.write_revealed(header, revealed)


def _deal(message: Message, context: Context) -> RecordDict:
    """Share the release out to the committee."""
    from fedgrpo.federation import committee_client

    _, _, settings = _open_round(message, context)
    return committee_client.deal(message.content, context, settings)


def _committee(message: Message, context: Context) -> RecordDict:
    """Do this node's part as a member of the committee."""
    from fedgrpo.federation import committee_member

    _, _, settings = _open_round(message, context)
    return committee_member.work(message.content, context, settings)


def _cosign(message: Message, context: Context) -> RecordDict:
    """Vouch for the server's ledger as a member of the committee."""
    from fedgrpo.federation import cosigning

    _, _, settings = _open_round(message, context)
    return cosigning.vouch(message.content, context, settings)


def _answering(handler: Handler) -> Callable[[Message, Context], Message]:
    """Turn a handler's failure into an error reply that holds nothing private."""

    def answer(message: Message, context: Context) -> Message:
        try:
            return Message(handler(message, context), reply_to=message)
        except PolicyError as error:
            LOG.warning("refused by this site's policy, %s: %s", error.code, error.problem)
            header = messages.read_header(message.content)
            refusal = messages.write_refusal(header, Refusal(error.code))
            return Message(refusal, reply_to=message)
        except Exception as error:
            # An error of our own says it all, unless it came from code that it does not quote.
            traced = error.__cause__ is not None or not isinstance(error, FedGRPOError)
            kind = message.metadata.message_type
            LOG.error("%s failed: %s", kind, public_reason(error), exc_info=traced)
            return Message(Error(APP_RAISED, public_reason(error)), reply_to=message)

    return answer


def public_reason(error: Exception) -> str:
    """What the server may know of a failure.

    An error of fedgrpo names its class and problem, which never hold prompt or completion text. Any
    other may quote what it choked on, so only its class leaves the node.
    """
    name = type(error).__name__
    return f"{name}: {error.problem}" if isinstance(error, FedGRPOError) else name


def _check_run(header: Header, context: Context, rounds: int) -> None:
    if header.round > rounds:
        raise ProtocolError(
            f"round {header.round} is beyond rounds = {rounds}, for which epsilon was stated",
            cure="agree on more rounds before the run",
        )
    if header.run_id != context.run_id:
        raise ProtocolError(
            f"message of run {header.run_id}, this is run {context.run_id}",
            cure="let each run's server talk to its own nodes",
        )


def _open_round(message: Message, context: Context) -> tuple[NodeMemory, Header, Settings]:
    """Take up the round that a message after training belongs to, under its settings."""
    memory, settings = NodeMemory(context.state), Settings.from_run_config(context.run_config)
    header = Header(context.run_id, memory.round)
    messages.check_header(message.content, header)
    memory.check_settings(settings.fingerprint())
    return memory, header, settings


def _check_settings(theirs: str, settings: Settings) -> None:
    if theirs != (ours := settings.fingerprint()):
        raise SettingsError(
            f"the server runs settings {theirs[:12]}, this node was given {ours[:12]}",
            cure="run the same version of the app bundle everywhere",
        )


def _check_trust(settings: Settings, node_config: Mapping[str, Scalar]) -> None:
    """Refuse to show this node's own vector unless its operator said so, or it is simulated.

    For nodes without a policy of their own: there, ``protocols`` decides.

    Adversary: a server whose settings name a protocol that hides nothing from it.
    """
    if settings.aggregation.protocol != "plain" or "partition-id" in node_config:
        return
    if node_config.get(TRUST) is not True:
        raise SettingsError(
            "aggregation.protocol = 'plain' would show the server this node's own vector",
            cure=f"start the node with --node-config '{TRUST}=true' if you trust the server with "
            "it, or agree on aggregation.protocol = 'buckets'",
        )


def _checked(release: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Refuse a release that a holder of one's own making got wrong."""
    if release.dtype != np.float64 or release.shape != (size,) or not np.isfinite(release).all():
        raise ProtocolError(
            f"the holder's release is {release.dtype} of shape {release.shape} with "
            f"{int(np.count_nonzero(~np.isfinite(release)))} non-finite values, expected finite "
            f"float64 of shape ({size},)",
            cure="return what ReleasePlan asks for",
        )
    return release
