"""Prompts: where they come from, the built-in tasks, and how a simulation splits them."""

from fedgrpo.data.partition import dirichlet_weights, hold_out, partition_rows
from fedgrpo.data.prompts import PromptRow, as_row, collate_columns, load_prompts
from fedgrpo.data.tasks import generate, is_held_out, register_task
from fedgrpo.data.units import Unit, check_unit_column, chosen_rows, unit_words, units_of
from fedgrpo.ground.chats import Chat, Prompt

__all__ = [
    "Chat",
    "Prompt",
    "PromptRow",
    "Unit",
    "as_row",
    "check_unit_column",
    "chosen_rows",
    "collate_columns",
    "dirichlet_weights",
    "generate",
    "hold_out",
    "is_held_out",
    "load_prompts",
    "partition_rows",
    "register_task",
    "unit_words",
    "units_of",
]
