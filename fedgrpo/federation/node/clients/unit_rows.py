"""A site's rows as units: which of them a round's coins choose, and what a unit contributes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedgrpo.data.prompts import PromptRow
from fedgrpo.data.units import chosen_rows, units_of
from fedgrpo.federation.node.clients.watch import Watch
from fedgrpo.ground.crypto import derive_key
from fedgrpo.grpo.isolated.apart import Limits
from fedgrpo.grpo.isolated.encoding import encodings
from fedgrpo.grpo.isolated.keys import Row, row_key
from fedgrpo.grpo.isolated.proof import most_sampled
from fedgrpo.model.base import BaseModel
from fedgrpo.privacy.accounting.guarantees import OVERFLOW
from fedgrpo.privacy.grid import GridSum
from fedgrpo.privacy.release import ReleasePlan
from fedgrpo.privacy.sampling import sampled_units
from fedgrpo.settings import Settings
from fedgrpo.site.declared import Declared

Floats = NDArray[np.float64]


class UnitRows:
    """Rows of a site, encoded, and the units that they belong to.

    Parameters
    ----------
    settings:
        The run's.
    base:
        Encodes them.
    rows:
        The site's own.
    declared:
        Its public figures.
    unread:
        Rows of the source that could not be read at all, for the site's own people.
    limits:
        Of time; None has none.

    Attributes
    ----------
    longest:
        Most tokens of a prompt that takes part.
    ids, late:
        Token ids of each row, None where it cannot take part; and how many took too long.
    units:
        By name.
    """

    def __init__(
        self,
        settings: Settings,
        base: BaseModel,
        rows: Sequence[PromptRow],
        declared: Declared,
        *,
        unread: int = 0,
        limits: Limits | None = None,
    ) -> None:
        self.settings, self.declared, self.unread = settings, declared, unread
        self.longest = min(declared.longest_prompt_tokens, settings.grpo.max_prompt_length)
        found = encodings(base, rows, self.longest, limits)
        read = [found.of(row.prompt) for row in rows]
        self.ids, self.late = [row.ids for row in read], sum(row.late for row in read)
        self.units = {unit.name: unit for unit in units_of(rows, settings.data.unit, found.text)}

    def sampled(self, plan: ReleasePlan, key: bytes, watch: Watch) -> list[Row]:
        """Rows of the units that their coins choose, in an order of their keys.

        Units beyond the number that time is sized for are left out at the order's end.
        """
        if self.unread:
            watch.mishaps["row of the source cannot be read"] += self.unread
        if self.late:
            watch.mishaps["row takes too long to encode"] += self.late
        count = self.declared.units or len(self.units)
        rate = min(1.0, plan.expected_prompts / count)
        chosen = sampled_units(list(self.units), rate, derive_key(key, "units"))
        most = most_sampled(count, plan.expected_prompts, OVERFLOW)
        _count(watch, "unit left out: more were sampled than time is sized for", chosen[most:])
        dead = [name for name in chosen[:most] if name in watch.dead]
        _count(watch, "unit left out: the process died at it", dead)
        rows = [row for name in chosen[:most] if name not in dead for row in self.rows(name, key)]
        bad = [row for row in rows if not row.ids]
        _count(watch, "prompt left out: too long, or it cannot be encoded", bad)
        return [row for row in rows if row.ids]

    def rows(self, name: str, key: bytes) -> list[Row]:
        """Rows of a unit that take part, those that cannot be encoded without ids."""
        unit, limit = self.units[name], self.settings.data.unit_rows
        taken = chosen_rows(unit, limit, derive_key(key, "rows", name))
        places = {index: ordinal for ordinal, index in enumerate(unit.rows)}
        return [
            Row(name, places[i], i, row_key(key, name, places[i]), self.ids[i] or ()) for i in taken
        ]


def share_of(gradient: Floats, told: Floats, clipping_norm: float, watch: Watch) -> GridSum:
    """What one unit says, clipped by itself: nothing at all where its gradient is not finite.

    Parameters
    ----------
    gradient:
        float64, shape (d,), of the loss: its descent is what is contributed.
    told:
        float64, shape (k,): its metrics.
    """
    share = GridSum.of_unit(-gradient, told, clipping_norm)
    if not share.units:
        watch.mishaps["unit left out: its gradient is not finite"] += 1
    return share


def _count(watch: Watch, cause: str, items: Sequence[object]) -> None:
    if items:
        watch.mishaps[cause] += len(items)
