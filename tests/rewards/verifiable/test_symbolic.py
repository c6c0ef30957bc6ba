from __future__ import annotations

import builtins
import importlib
import logging
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedgrpo.ground.errors import RewardError
from fedgrpo.rewards import symbolic_match

SECRET = "patient Zyx"


@pytest.fixture
def library() -> Any:
    return pytest.importorskip("math_verify", reason="needs fedgrpo[symbolic]")


@pytest.mark.parametrize(
    ("completion", "answer", "reward"),
    [
        (r"so \boxed{\frac{1}{2}}", "1/2", 1),
        (r"$\frac12$", 0.5, 1),
        ("it is 0.5", r"\frac{1}{2}", 1),
        (r"\boxed{x^2+2x+1}", "(x+1)^2", 1),
        (r"$\sqrt{8}$", r"2\sqrt{2}", 1),
        (r"\boxed{3}", 4, 0),
        ("no idea", 4, 0),
        ("", "4", 0),
        ("7", "", None),
        ("7", None, None),
    ],
)
def test_equal_expressions_are_right_however_written(
    library: Any, completion: str, answer: Any, reward: float | None
) -> None:
    assert symbolic_match(["p"], [completion], answer=[answer]) == [reward]
    chat = [{"role": "assistant", "content": completion}]
    assert symbolic_match(["p"], [chat], answer=[answer]) == [reward]


@settings(max_examples=20)
@given(st.text("0123456789+-*/^{}\\$ xfrac", max_size=20))
def test_any_text_can_be_judged(text: str) -> None:
    pytest.importorskip("math_verify", reason="needs fedgrpo[symbolic]")
    assert symbolic_match(["p"], [text], answer=["7"]) in ([0.0], [1.0])


@pytest.mark.slow
def test_what_takes_too_long_is_wrong_and_is_not_logged(
    library: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fedgrpo.rewards.verifiable.symbolic.TIMEOUT_S", 1)
    with caplog.at_level(logging.DEBUG):
        assert symbolic_match(["p"], [r"\boxed{9^{9^{9^{9}}}}"], answer=["3"]) == [0.0]
    assert "9^" not in caplog.text


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(RewardError, match=r"fedgrpo\[symbolic\]") as caught:
        symbolic_match([SECRET], [SECRET], answer=[SECRET])
    assert SECRET not in str(caught.value)


def test_a_thread_without_a_time_limit_is_refused() -> None:
    caught: list[builtins.BaseException] = []

    def call() -> None:
        try:
            symbolic_match(["p"], ["1"], answer=["1"])
        except RewardError as error:
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert "main thread" in str(caught[0])
