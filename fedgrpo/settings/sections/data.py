"""Settings of prompts: those that train, how completions are judged, those held out."""

from __future__ import annotations

from fedgrpo.settings.sections.section import Names, Numbers, Section


class DataSettings(Section):
    """Where prompts come from in a simulation. A deployed node names its own file in its own site
    file.
    """

    source: str = "tasks"
    """``tasks`` for the built-in ones, a .jsonl or .parquet file, a dataset saved to disk, or
    ``hf:NAME``.
    """
    split: str = "train"
    """Split of a Hugging Face dataset."""
    tasks: Names = ("add", "reverse", "sort", "maximum")
    """Tasks to draw from: built in, of a module or of a file, with options."""
    prompts_per_client: int = 2000
    """Different prompts generated for each simulated client (built-in tasks only)."""
    min_prompts: int = 2000
    """Public lower bound on a client's units. A client with fewer refuses; the stated epsilon
    assumes it.
    """
    unit: str = ""
    """Column whose value makes rows one unit, for example ``patient_id`` (privacy.unit = 'prompt').
    Empty makes rows with the same text one unit.
    """
    unit_rows: int = 1
    """Most rows of a unit that take part in a round, chosen in secret. They are clipped together.
    """
    heterogeneity: float = 0.5
    """Concentration of the Dirichlet split over tasks or ``partition_by``; smaller is more unequal.
    """
    partition_by: str = ""
    """Column of a file or dataset by which simulated clients differ. Empty splits evenly."""
    client_column: str = ""
    """Column whose values are the simulated clients themselves, one each. Nothing is split then."""


class RewardSettings(Section):
    """How completions are judged."""

    functions: Names = ("exact_match",)
    """Built-in names, ``package.module:function`` or ``path/to/file.py:function``, with options, in
    TRL's calling convention.
    """
    weights: Numbers = ()
    """One weight a function. Empty weighs all by 1."""
    minimum: float = 0.0
    """Least weighted reward that is reported. Reported rewards are clipped to [minimum, maximum];
    training is not.
    """
    maximum: float = 1.0
    """Largest weighted reward that is reported."""


class EvaluationSettings(Section):
    """Held-out accuracy, measured by the server on prompts that no client has."""

    source: str = ""
    """File or dataset of public prompts. Empty takes built-in tasks, or holds rows out of a
    simulation's file.
    """
    prompts: int = 400
    """Held-out prompts."""
    every: int = 5
    """Rounds between two evaluations. The first and last are always evaluated."""
