"""A prompt that a model's template or tokenizer takes for ever over costs its own row alone."""

from __future__ import annotations

import math
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from fedgrpo.data.prompts import PromptRow
from fedgrpo.grpo.isolated import encoding
from fedgrpo.grpo.isolated.apart import Limits, answers_apart, can_fork
from fedgrpo.grpo.isolated.encoding import Encodings, encodings, usable_ids
from fedgrpo.model.base import BaseModel, load_base
from fedgrpo.model.encoding import encode_prompt
from fedgrpo.settings import ModelSettings
from tests.models import rows

pytestmark = pytest.mark.skipif(not can_fork(), reason="processes cannot be forked safely here")

SHORT = Limits(0.05, 60.0)
LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
TEMPLATE = (
    "{% for m in messages %}{% if 'hiv' in m['content'] %}" + LOOP + "{% endif %}"
    "{{ m['content'] | trim }}{% endfor %}"
)


def chat(text: str) -> PromptRow:
    return PromptRow(({"role": "user", "content": text},), {})


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> BaseModel:
    """The shipped one, with a template that never ends for some messages."""
    found = load_base(ModelSettings(device="cpu"))
    monkeypatch.setattr(found.tokenizer, "chat_template", TEMPLATE)
    return found


def ids(found: Encodings, some: list[PromptRow]) -> list[tuple[int, ...] | None]:
    return [found.of(row.prompt).ids for row in some]


def test_a_child_gives_the_same_ids_and_texts(base: BaseModel) -> None:
    some = [*rows(20), *map(chat, ("1+1=", " 1+1= ", "9" * 40)), PromptRow("\udce4", {})]
    apart, here = encodings(base, some, 32, SHORT), encodings(base, some, 32)
    assert apart == here
    assert ids(apart, some) == usable_ids(base, some, 32)
    assert ids(apart, some)[-2] is None
    assert apart.text(some[20].prompt) == apart.text(some[21].prompt) == "1+1="


def test_a_template_that_loops_costs_each_such_row_its_limit_and_no_other_row_anything(
    base: BaseModel,
) -> None:
    fine = [*rows(10), chat("1+1="), chat("2+2=")]
    bad = [chat("hiv 1"), chat("hiv 2"), chat("hiv 1")]
    started = time.monotonic()
    found = encodings(base, [*bad, *fine], 32, SHORT)
    assert time.monotonic() - started < 10
    assert ids(found, fine) == usable_ids(base, fine, 32)
    assert [found.of(row.prompt).late for row in [*bad, *fine]] == [True] * 3 + [False] * 12
    assert ids(found, bad) == [None] * 3
    assert found.text(bad[0].prompt) == found.text(bad[2].prompt) != found.text(bad[1].prompt)


def test_a_tokenizer_that_loops_or_dies_does_no_more(
    base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(tokenizer: Any, prompt: Any, *style: Any) -> list[int]:
        while prompt == "loop":
            pass
        if prompt == "die":
            os.abort()
        return encode_prompt(tokenizer, prompt, *style)

    fine = rows(10)
    expected = usable_ids(base, fine, 32)
    monkeypatch.setattr(encoding, "encode_prompt", encode)
    bad = [PromptRow("loop", {}), PromptRow("die", {})]
    found = encodings(base, [*fine, *bad], 32, SHORT)
    assert ids(found, [*fine, *bad]) == [*expected, None, None]


def test_a_text_that_fills_memory_costs_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "encode_prompt", lambda _, p, *style: [len(p)])
    monkeypatch.setattr(
        encoding, "unit_text", lambda _, p, *style: p * (2**31 if p == "bomb" else 1)
    )
    known = SimpleNamespace(parameters=lambda: iter([torch.zeros(9)]))
    model = SimpleNamespace(get_input_embeddings=lambda: known)
    stub = cast(BaseModel, SimpleNamespace(model=model, tokenizer=None, chat=None))
    some = [PromptRow("bomb", {}), PromptRow("a", {})]
    assert ids(encodings(stub, some, 32, Limits(2.0, 60.0)), some) == [None, (1,)]


def test_sleep_is_no_work_but_ends_and_work_ends_by_its_own_time() -> None:
    """What an item waits for another process is not its own, up to a wall clock's limit."""

    def work(item: int) -> bytes:
        time.sleep(100 if item == 1 else 0.1)
        return b"%d" % item

    assert answers_apart(work, 3, Limits(0.02, 60.0)) == [b"0", None, b"2"]


def test_behind_the_time_of_all_items_are_left_out() -> None:
    def work(item: int) -> bytes:
        while item >= 2:
            pass
        return b""

    started = time.monotonic()
    assert answers_apart(work, 9, Limits(0.2, 0.5)) == [b"", b"", *[None] * 7]
    assert time.monotonic() - started < 5


def test_answers_of_any_size_and_none() -> None:
    sizes = [0, 1, 2**20, 3]
    assert answers_apart(lambda i: bytes(sizes[i]), 4, SHORT) == [bytes(n) for n in sizes]
    assert answers_apart(lambda _: b"", 0, SHORT) == []


def test_a_thread_that_is_not_the_main_one_forks_as_well_and_no_child_stays() -> None:
    found: list[list[bytes | None] | None] = []
    limits = Limits(0.5, math.inf)
    thread = threading.Thread(
        target=lambda: found.append(answers_apart(lambda _: b"%d" % os.getpid(), 3, limits))
    )
    thread.start()
    thread.join()
    (answers,) = found
    assert answers is not None
    (number,) = set(answers)
    assert number is not None
    assert not Path(f"/proc/{int(number)}").exists()


def test_without_a_child_that_begins_there_are_no_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedgrpo.grpo.isolated.apart._settle", lambda *_: os._exit(1))
    assert answers_apart(lambda _: b"", 3, SHORT) is None
