"""Which sums of a round the server opens, over all its attempts at that round."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from fedgrpo.ground.files import replace_file

Sum = frozenset[str]
"""Names of the clients whose releases are in a sum."""


class Openings:
    """Keeps a repeated round from opening sums whose difference would show a single release.

    A round that a kill interrupted is run again, and each client sends the same release again. If
    other clients drop out this time, another sum is formed: a + b + c before the kill and a + b
    after it, say, and whoever saw both knows c. So what is about to be opened is written down
    first, and an opening is admitted only if, for every other one of the round, its clients are
    the same ones or none of them.

    Adversary: a server that runs this code and remembers everything, earlier attempts included
    (honest but curious), with peers that collude as far as :mod:`fedgrpo.secure.masking` allows. It
    learns, over all attempts, sums over disjoint sets of clients: what one attempt with those
    buckets shows. That is also why a round is accounted for once where a statement counts on the
    noise of honest peers: no release is in two different sums.

    A run from a backup does not know what was opened since, so of the first round that it comes to
    it opens nothing; sites themselves refuse a round before the last one that they have answered.

    Parameters
    ----------
    path:
        Where openings are kept, or None for a run that cannot be resumed.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._round, self._opened, self._unknown = 0, set[Sum](), False
        if path is not None and path.exists():
            kept = json.loads(path.read_text("utf-8"))
            self._round, self._opened = kept["round"], set(map(frozenset, kept["sums"]))
            self._unknown = kept.get("unknown", False)

    def admit(self, round: int, sums: Sequence[Sum]) -> list[bool]:
        """Tell which of these disjoint sums may be opened. It is on disk when this returns.

        Parameters
        ----------
        round:
            Round number, from 1.
        """
        if self._unknown and self._round in (0, round):
            self._round = round
            self._keep({"round": round, "sums": [], "unknown": True})
            return [False] * len(sums)
        before = self._opened if round == self._round else set[Sum]()
        admitted = [all(one == other or one.isdisjoint(other) for other in before) for one in sums]
        opened = before | {one for one, fits in zip(sums, admitted, strict=True) if fits}
        if (round, opened) != (self._round, self._opened):
            self._keep({"round": round, "sums": sorted(map(sorted, opened))})
        self._round, self._opened, self._unknown = round, opened, False
        return admitted

    def _keep(self, kept: Mapping[str, object]) -> None:
        if self._path is not None:
            replace_file(self._path, json.dumps(kept).encode(), mode=0o600)
