"""The lines of a run directory, cut back to the state from which training carries on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedgrpo.ground.files import lines
from fedgrpo.ground.records import from_json, to_json
from fedgrpo.grpo.learning.metrics import StepMetrics
from fedgrpo.report.rows import Rows
from fedgrpo.report.training import (
    COMPLETIONS,
    EVALUATIONS,
    STEPS,
    WARNINGS,
    EvaluationRow,
    SampleRow,
    WarningRow,
)

FILES = (STEPS, EVALUATIONS, COMPLETIONS, WARNINGS)
PRIVATE = frozenset({COMPLETIONS})
"""Files with prompts and completions, which only their owner may read."""


class Journal:
    """The one writer of a run's rows.

    Rows are appended at once, so that a run can be watched, and are on disk before a state that
    counts on them (:meth:`sync`).

    Parameters
    ----------
    run_dir:
        Exists. May hold rows of an earlier, interrupted part of the same run.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._rows = {name: Rows(run_dir / name, name in PRIVATE) for name in FILES}
        self._told = {row.message for row in self.warnings()}

    def step(self, metrics: StepMetrics) -> None:
        """Append a step; figures that are not finite become null."""
        self._rows[STEPS].append([json.dumps(finite(metrics.as_row()))])

    def evaluation(self, row: EvaluationRow, samples: Sequence[SampleRow]) -> None:
        """Append an evaluation and its table of completions.

        The evaluation's own row comes last: only with it has the evaluation taken place.
        """
        self._rows[COMPLETIONS].append([to_json(sample) for sample in samples])
        self._rows[EVALUATIONS].append([to_json(row)])

    def warning(self, row: WarningRow) -> bool:
        """Append a warning, unless it was given before; say whether it is new."""
        if row.message in self._told:
            return False
        self._told.add(row.message)
        self._rows[WARNINGS].append([to_json(row)])
        return True

    def evaluations(self) -> list[EvaluationRow]:
        """Read the evaluations, oldest first."""
        return [from_json(EvaluationRow, line) for line in lines(self.run_dir / EVALUATIONS)]

    def warnings(self) -> list[WarningRow]:
        """Read the warnings, oldest first."""
        return [from_json(WarningRow, line) for line in lines(self.run_dir / WARNINGS)]

    def cut(self, step: int) -> None:
        """Forget every row after ``step``: those steps are taken again. -1 forgets all.

        Completions whose evaluation has no row go too: it is made again.
        """
        for name in (STEPS, WARNINGS, EVALUATIONS):
            self._cut(name, lambda at: at <= step)
        measured = {row.step for row in self.evaluations()}
        self._cut(COMPLETIONS, lambda at: at in measured)
        self._told = {row.message for row in self.warnings()}

    def sync(self) -> None:
        """Bring every row to disk."""
        for rows in self._rows.values():
            rows.sync()

    def _cut(self, name: str, wanted: Callable[[int], bool]) -> None:
        self._rows[name].keep(lambda line: wanted(json.loads(line)["step"]))


def finite(value: Any) -> Any:
    """JSON knows no NaN and no infinity: null says that there is no figure."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
