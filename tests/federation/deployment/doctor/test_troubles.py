"""The table of what can be wrong: every code is used, every check is there, every cure is seen."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest

from fedgrpo.federation.deployment.doctor import examine
from fedgrpo.federation.deployment.doctor.registry import CHECKS, check
from fedgrpo.federation.deployment.doctor.troubles import (
    FLOWER_SAYS,
    TROUBLES,
    TROUBLES_OF,
    Light,
)

ROOM = Path(examine.__file__).parent
HERE = Path(__file__).parent


def sources(folder):
    return "\n".join(file.read_text() for file in sorted(folder.rglob("*.py")))


def test_there_are_21_checks_and_each_finds_something_of_its_own():
    assert sorted(CHECKS) == list(range(1, 22))
    assert sorted(TROUBLES_OF) == list(range(22))
    assert all(TROUBLES_OF.values())
    assert len(TROUBLES) == sum(map(len, TROUBLES_OF.values())), "a code is there twice"


def test_a_number_is_given_once():
    with pytest.raises(ValueError, match="is there already"):
        check(1, "again")(lambda _: iter(()))


def test_every_code_is_used_and_every_used_code_is_in_the_table():
    code = sources(ROOM).replace((ROOM / "troubles.py").read_text(), "")
    assert not [name for name in TROUBLES if f'"{name}"' not in code]
    used = set(re.findall(r'(?:trouble|said|_Broken)\(\s*(?:\w+, )?"([a-z-]+)"', code))
    assert used <= set(TROUBLES)


def test_every_check_was_seen_red_with_its_cure():
    """In the tests of this folder: by a red code of its own, for each check."""
    tests = sources(HERE)
    for number, group in TROUBLES_OF.items():
        reds = [code for code, each in group.items() if each.light is Light.RED]
        assert not number or any(f'"{code}"' in tests for code in reds), f"check {number}"


def test_every_text_says_what_to_do():
    for code, each in TROUBLES.items():
        assert each.cure, code
        assert bool(each.about) == (each.problem == "{problem}" or each.cure == "{cure}"), code
        assert each.light is not Light.GREEN
        list(string.Formatter().parse(each.problem + each.cure))


def test_what_flower_says_leads_to_codes():
    assert {code for _, codes in FLOWER_SAYS.values() for code in codes} <= set(TROUBLES)
