"""Settings of prompts: those that train, how completions are judged, those held out."""

from __future__ import annotations

from fedgrpo.settings.sections.section import Counts, Names, Numbers, Section
from fedgrpo.settings.sections.table import Table, read_table, to_text


class DataSettings(Section):
    """Where prompts come from in a simulation. A deployed node names its own file in its own site
    file.
    """

    source: str = "tasks"
    """``tasks`` for the built-in ones; a .jsonl, .json, .csv, .tsv or .parquet file (all but the
    last also with .gz), a dataset saved to disk, or ``hf:NAME``."""
    config: str = ""
    """Configuration of a Hugging Face dataset, such as ``main`` of openai/gsm8k."""
    split: str = "train"
    """Split of a Hugging Face dataset."""
    columns: Table = ""
    """What columns are called, by the names that are asked for: a table ``{prompt = "question"}``,
    or ``"prompt=question, answer=solution"``.
    """
    system_prompt: str = ""
    """First message of every chat that has no system message; a text prompt becomes a user's
    message after it. Not for built-in tasks.
    """
    chat_template: str = ""
    """Name of one of the tokenizer's chat templates, a .jinja file that a scenario brings, or a
    template's text. Empty takes the tokenizer's default.
    """
    chat_template_kwargs: Table = ""
    """What a chat template is told besides the messages: ``{enable_thinking = false}``, or
    ``"enable_thinking=false"``.
    """
    today: str = "2026-01-01"
    """Date (ISO) that a chat template is told if it asks for today's: the same on every node and in
    a run that goes on another day.
    """
    max_failing: float = 0.05
    """Largest share of rows that may be left out because they cannot be used, where someone trains
    or simulates. More of them end the command before it starts.
    """
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
    task_clients: Table = ""
    """How many simulated clients have a built-in task: ``{reverse = 2}``. They are the last ones
    and have nothing else; the others have none of it. Empty splits all tasks over all.
    """
    partition_by: str = ""
    """Column of a file or dataset by which simulated clients differ. Empty splits evenly."""
    client_column: str = ""
    """Column whose values are the simulated clients themselves, one each. Nothing is split then."""

    def column_names(self) -> dict[str, str]:
        """What each column that is asked for is called in the source."""
        return {name: str(value) for name, value in read_table(self.columns).items()}

    def with_columns(self, own: str) -> DataSettings:
        """The same settings for the file of a site that calls columns otherwise, as a table like
        ``columns``: what it names goes before what the run does. Raises ValueError if it is none.
        """
        names = read_table(self.columns) | read_table(str(to_text(own)))
        return self.model_copy(update={"columns": to_text(names)}) if own else self

    def held(self) -> dict[str, int]:
        """How many clients each task of ``task_clients`` has."""
        return read_table(self.task_clients)

    def template_kwargs(self) -> dict[str, object]:
        """What a chat template is told besides the messages."""
        return read_table(self.chat_template_kwargs)


class RewardSettings(Section):
    """How completions are judged."""

    functions: Names = ("exact_match",)
    """Built-in names, ``package.module:function`` or ``path/to/file.py:function``, with options, in
    TRL's calling convention.
    """
    weights: Numbers = ()
    """One weight a function. Empty weighs all by 1."""
    evaluation: Names = ()
    """Functions that judge held-out prompts, all weighing 1. Empty takes those of the training."""
    timeout_s: float = 60.0
    """Seconds that a function of a module or a file may take for one prompt's completions (not with
    privacy.unit = 'prompt', where only its CPU time and the site's own limits count).
    """
    cpu_s: int = 10
    """CPU seconds, likewise."""
    network: bool = True
    """Whether functions of modules and files may use the network, likewise. Without it they can
    still read and write files: it is no sandbox for code that you do not trust.
    """
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
    by: str = "task"
    """Column of the held-out prompts; each of its values is reported by itself, as far as there is
    such a column and it has few values. Empty reports the total alone.
    """
    pass_at: Counts = ()
    """Numbers k, such as ``[1, 8, 128]``: before the first and after the last round, the share of
    held-out prompts of which one of k sampled completions is worth at least
    ``grpo.passing_reward``. Takes as many completions of each prompt as the largest. Empty measures
    none.
    """
