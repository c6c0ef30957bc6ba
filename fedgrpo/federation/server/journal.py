"""Moving a run's files on, round by round, so that a kill at any instant is as if it had not been.

A round has one durable step: the checkpoint's replacement, which holds the state after the round
and, word for word, what is then appended to the other files. Before it, nothing of the round is
published, and a repetition computes it again; after it, the round is never run again, and a
resume first appends what is missing.

Why a repeated round costs privacy once. Every draw in it is a function of secrets and of the
round's whole plan, so the repetition is the same release, bit for bit, for clients (see
:mod:`fedgrpo.federation.state.node_store`) and for the server's noise, which is bound to what it
hides (:func:`fedgrpo.privacy.noise.add_noise`); whoever saw both saw one. If other clients answer
than before the kill, the sums that the server opens are still over equal or disjoint sets
(:mod:`fedgrpo.federation.protocols.openings`), so no client's release is in two different ones; and
the server's noise over another sum is independent of the first, which nobody but the server has
seen, for the models that readers get are those of durable steps. A round that was begun is counted
when it begins, in case it is never finished.
"""

from __future__ import annotations

from pathlib import Path

from fedgrpo.federation.protocols.openings import Openings
from fedgrpo.federation.server.checkpoint import (
    Pending,
    ServerState,
    Stored,
    resume,
    save_checkpoint,
)
from fedgrpo.federation.wire.versions import VERSION, code_hash
from fedgrpo.ground.crypto import derive_key
from fedgrpo.ground.errors import LedgerError
from fedgrpo.ground.files import sweep_drafts
from fedgrpo.ground.records import from_json, to_json
from fedgrpo.ground.run_files import OPENED
from fedgrpo.ledger import End, Entry, Head, Ledger
from fedgrpo.model.adapter import AdapterState
from fedgrpo.report.records import RoundRow
from fedgrpo.report.writer import RunWriter
from fedgrpo.settings import Settings


class Journal:
    """The one writer of what a run has come to: checkpoint, metrics rows and ledger.

    Parameters
    ----------
    secret:
        The run's (32 bytes).
    writer, checkpoint, ledger:
        Where to; None leaves it out. The ledger needs the checkpoint.

    Attributes
    ----------
    run:
        Name of the run, the same after a resume.
    """

    def __init__(
        self,
        settings: Settings,
        secret: bytes,
        *,
        writer: RunWriter | None,
        checkpoint: Path | None,
        ledger: Ledger | None,
    ) -> None:
        self.run = derive_key(secret, "run").hex()[:32]
        self._settings, self._fingerprint = settings, settings.fingerprint()
        self._writer, self._checkpoint, self._ledger = writer, checkpoint, ledger
        self._pending = Pending()

    def open(self, adapter: AdapterState) -> tuple[ServerState, bool]:
        """Take up the run where its last durable step left it, or begin it.

        Parameters
        ----------
        adapter:
            To begin with, and to compare with the checkpoint's.

        Returns
        -------
        tuple[ServerState, bool]
            And whether the run begins.

        Raises
        ------
        RunError
            If the checkpoint is of other settings, other code or another base model.
        LedgerError
            If the ledger is not the checkpoint's.
        """
        if self._checkpoint:
            sweep_drafts(self._checkpoint.parent)
        stored = resume(self._checkpoint, self._settings, adapter)
        if stored is None:
            self._begin_files()
            return ServerState.at_start(adapter, self._settings), True
        self._recover(stored)
        return stored.state, False

    @property
    def ended(self) -> bool:
        """Whether the ledger has its end."""
        return self._ledger is not None and self._ledger.ended

    @property
    def root(self) -> str:
        """``ROOT:SIZE`` of the ledger so far, as readers are told it; empty without one."""
        return self._ledger.told if self._ledger else ""

    def openings(self) -> Openings:
        """Return the record of opened sums."""
        return Openings(self._checkpoint.with_name(OPENED) if self._checkpoint else None)

    def begin_round(self, state: ServerState) -> None:
        """Note that a round begins, which counts it. Durable when this returns."""
        self._save(state)

    def commit(self, state: ServerState, row: RoundRow, entry: Entry) -> None:
        """End a round: the durable step, and what follows from it."""
        line = self._ledger.prepare(entry) if self._ledger else ""
        self._pending = Pending(to_json(row), line, self._ledger.size if self._ledger else 0)
        self._save(state)
        if self._writer:
            self._writer.row(row)
        if self._ledger:
            self._ledger.commit(line)

    def end(self, state: ServerState, files: dict[str, str]) -> None:
        """Enter the final adapter's files into the ledger, once."""
        if self._ledger is None or self.ended:
            return
        end = End(rounds=state.progress.round - 1, adapter=state.adapter.vector_hash, files=files)
        line = self._ledger.prepare(end)
        self._pending = Pending("", line, self._ledger.size)
        self._save(state)
        self._ledger.commit(line)

    def head(self, adapter: AdapterState) -> Entry:
        """Return the ledger's first entry."""
        return Head(
            run=self.run,
            public_key=self._ledger.public_key if self._ledger else "",
            settings=self._settings.model_dump(mode="json", exclude={"run"}),
            fingerprint=self._fingerprint,
            model=adapter.layout,
            basis=adapter.basis_hash,
            adapter=adapter.vector_hash,
            version=VERSION,
            code=code_hash(),
        )

    def _begin_files(self) -> None:
        """Clear what a run that never reached its first durable step has left."""
        if self._ledger:
            self._ledger.require_new()
        if self._writer:
            self._writer.truncate(-1)

    def _recover(self, stored: Stored) -> None:
        """Append what the last durable step had not yet brought to the other files."""
        self._pending = pending = stored.pending
        if self._writer and pending.row:
            row = from_json(RoundRow, pending.row)
            self._writer.truncate(row.round - 1)
            self._writer.row(row)
        if self._ledger:
            if not pending.line:
                raise LedgerError(
                    "the checkpoint is of a run without a ledger",
                    cure="begin a new run in an empty directory",
                )
            self._ledger.recover(pending.entries, pending.line)

    def _save(self, state: ServerState) -> None:
        if self._checkpoint:
            save_checkpoint(self._checkpoint, state, self._fingerprint, self._pending)
