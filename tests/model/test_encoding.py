"""What a model reads of a prompt: one beginning, no end, and what is a user's text."""

from typing import Any

import pytest

from fedgrpo.data import PromptRow, units_of
from fedgrpo.ground.errors import DataError, SettingsError
from fedgrpo.grpo.rollout import usable
from fedgrpo.grpo.rollout.usable import usable_rows
from fedgrpo.model.chat_style import PLAIN, ChatStyle
from fedgrpo.model.encoding import encode_prompt, unit_text
from fedgrpo.settings import DataSettings
from tests.model.tokenizers import CHAT, DATED, NO_SYSTEM, tokenizer


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


def tokens(made: Any, prompt: Any, style: ChatStyle = PLAIN) -> list[str]:
    return list(made.convert_ids_to_tokens(encode_prompt(made, prompt, style)))


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize(("bos", "eos"), [(True, False), (False, True), (True, True)])
def test_a_text_begins_once_and_does_not_end_before_its_answer(bos: bool, eos: bool) -> None:
    made = tokenizer(bos=bos, eos=eos)
    start = ["<s>"] if bos else []
    assert tokens(made, "1+1=") == [*start, *"1+1="]
    assert tokens(made, "<s>1+1=") == ["<s>", *"1+1="]
    assert tokens(made, "<s><|user|>1</s><|assistant|>") == [
        *("<s>", "<|user|>", "1", "</s>", "<|assistant|>")
    ]


def test_a_chat_whose_template_begins_it_is_not_begun_twice() -> None:
    made = tokenizer("<s>" + CHAT, bos=True, eos=True)
    assert tokens(made, user("1")) == ["<s>", "<|user|>", "1", "</s>", "<|assistant|>"]


def test_the_assistants_last_message_is_continued() -> None:
    chat = [*user("1"), {"role": "assistant", "content": "it is "}]
    assert tokens(tokenizer(), chat) == ["<|user|>", "1", "</s>", "<|assistant|>", *"it is "]


def test_a_message_that_a_template_changes_cannot_be_continued_and_is_refused() -> None:
    made = tokenizer(CHAT.replace("m['content'] }}", "m['content'] | upper }}"))
    with pytest.raises(DataError, match="leave its last message open") as caught:
        encode_prompt(made, [*user("1"), {"role": "assistant", "content": "it is"}])
    assert caught.value.cure


@pytest.mark.parametrize("role", ["user", "system"])
@pytest.mark.parametrize("marker", ["<|assistant|>", "</s>", "<s>", "</think>"])
def test_a_users_text_that_spells_a_control_token_stays_text(marker: str, role: str) -> None:
    made = tokenizer(CHAT + "{% if think %}</think>{% endif %}")
    chat = [{"role": role, "content": f"1{marker}7"}]
    assert tokens(made, chat) == [f"<|{role}|>", "1", *marker, "7", "</s>", "<|assistant|>"]
    assert made.decode(encode_prompt(made, chat)) == f"<|{role}|>1{marker}7</s><|assistant|>"


def test_markers_within_and_behind_each_other_stay_text() -> None:
    text = "<|user<|user|>|></s></s>"
    found = tokens(tokenizer(), user(text))
    assert found == ["<|user|>", *text, "</s>", "<|assistant|>"]


def test_a_chat_without_markers_is_encoded_as_transformers_does() -> None:
    made, chat = tokenizer(), [{"role": "system", "content": "be brief"}, *user("1+1= ?")]
    theirs = made.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert encode_prompt(made, chat) == theirs


def test_a_template_that_tells_the_date_tells_the_runs() -> None:
    made = tokenizer(DATED)
    assert tokens(made, user("1"))[:10] == [*"01 01 2026"]
    assert tokens(made, user("1"), ChatStyle(today="2027-12-31"))[:10] == [*"31 12 2027"]


def test_what_a_template_is_told_and_which_one_it_is_are_settings() -> None:
    told = tokenizer("{{ mood }}" + CHAT)
    style = ChatStyle.of(DataSettings(chat_template_kwargs="mood=glad"))
    assert tokens(told, user("1"), style)[:4] == [*"glad"]
    several = tokenizer({"rag": CHAT, "tool_use": "t" + CHAT})
    assert tokens(several, user("1"), ChatStyle("tool_use"))[0] == "t"
    assert tokens(tokenizer(None), user("1"), ChatStyle("x" + CHAT))[0] == "x"
    with pytest.raises(DataError, match=r"rag, tool_use(.|\n)*data\.chat_template = 'rag'"):
        encode_prompt(several, user("1"))
    with pytest.raises(SettingsError, match="rag, tool_use"):
        encode_prompt(several, user("1"), ChatStyle("other"))
    with pytest.raises(DataError, match="no chat template"):
        encode_prompt(tokenizer(None), user("1"))
    with pytest.raises(DataError, match="asks for the time"):
        encode_prompt(tokenizer("{{ strftime_now(form) }}" + CHAT), user("1"))


def test_what_a_template_raises_is_told_by_its_class_and_never_by_its_text() -> None:
    chat = [{"role": "system", "content": "secret"}, *user("1")]
    with pytest.raises(DataError, match="TemplateError") as caught:
        encode_prompt(tokenizer(NO_SYSTEM), chat)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_rows_that_cannot_be_encoded_are_named_by_their_numbers_and_cost_no_other() -> None:
    bad = PromptRow(({"role": "system", "content": "x"},), {}, 7)
    rows = [PromptRow("1+1="), bad, PromptRow("1" * 30, {}, 9), PromptRow("2+2=", {}, 10)]
    found = usable_rows(tokenizer(NO_SYSTEM), PLAIN, rows, 20)
    assert [row.prompt for row in found.rows] == ["1+1=", "2+2="]
    assert len(found.encoded) == 2
    first, second = (error.problem for error in found.failures)
    assert first.startswith("row 7 of the prompts: a chat cannot be read")
    assert second.startswith("row 9 of the prompts: it has 30 tokens")


ENDLESS = (
    "{% if messages[0].content != '1+1=' %}{% for a in range(99999) %}{% for b in range(99999) %}"
    "{% endfor %}{% endfor %}{% endif %}{{ messages[0].content }}"
)


def test_a_template_that_never_ends_costs_its_row_and_three_of_them_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(usable, "ROW_S", 0.05)
    rows = [PromptRow(({"role": "user", "content": f"{n}+1="},), {}, n) for n in (1, 2, 3, 4)]
    found = usable_rows(tokenizer(ENDLESS), PLAIN, rows[:3], 20)
    assert [row.number for row in found.rows] == [1]
    told = [error.problem for error in found.failures]
    assert told == [
        f"row {n} of the prompts: a chat cannot be read by the chat template (TimeoutError)"
        for n in (2, 3)
    ]
    with pytest.raises(DataError, match="row 4 of the prompts, and others before it") as caught:
        usable_rows(tokenizer(ENDLESS), PLAIN, rows, 20)
    assert "see whether the chat template ends" in caught.value.cure
