"""What a model reads of a prompt tells which prompts are the same."""

from typing import Any

from fedgrpo.data import PromptRow, units_of
from fedgrpo.model.encoding import unit_text


class Template:
    """A template that trims messages, as many do, and refuses a role."""

    chat_template = "given"

    def apply_chat_template(self, messages: list[dict[str, str]], **_: Any) -> str:
        if messages[0]["role"] == "refused":
            raise RuntimeError("Conversation roles must alternate")
        return "".join(f"<{m['role']}>{m['content'].strip()}" for m in messages)


def chat(text: str, role: str = "user") -> PromptRow:
    return PromptRow(({"role": role, "content": text},), {})


def test_prompts_that_a_model_cannot_tell_apart_are_one_unit() -> None:
    rows = [chat("a"), chat(" a "), PromptRow("<user>a", {}), chat("b")]
    units = units_of(rows, render=lambda prompt: unit_text(Template(), prompt))  # type: ignore[arg-type]
    assert sorted(len(unit.rows) for unit in units) == [1, 3]


def test_a_prompt_that_the_template_refuses_is_a_unit_and_no_error() -> None:
    rows = [chat("a", "refused"), chat("b", "refused"), chat("a", "refused")]
    units = units_of(rows, render=lambda prompt: unit_text(Template(), prompt))  # type: ignore[arg-type]
    assert sorted(len(unit.rows) for unit in units) == [1, 2]
