"""Rules over rows: each says no more than it looks at, and a person's rows decide no other's."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.data.curation.checks import faults, script_share
from fedgrpo.data.curation.rules import Rules
from fedgrpo.data.curation.verdicts import judged
from fedgrpo.data.prompts import PromptRow
from fedgrpo.ground.errors import SettingsError

NEAR = "the patient came in on monday with a fever and a cough that would not end"


def rows(*texts: str, **columns: str) -> list[PromptRow]:
    return [PromptRow(text, columns, number) for number, text in enumerate(texts, start=1)]


def owned(*pairs: tuple[str, str]) -> list[PromptRow]:
    return [PromptRow(text, {"who": who}, n) for n, (who, text) in enumerate(pairs, start=1)]


def broken(row: PromptRow, **rules: object) -> list[tuple[str, str]]:
    return list(faults(row, Rules.model_validate(rules)))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("write to jane.doe@example.org today", "email"),
        ("call +49 30 1234 5678 after six", "phone"),
        ("pay DE89 3704 0044 0532 0130 00 now", "iban"),
        ("card 4111 1111 1111 1111 was charged", "card"),
        ("from 192.168.17.4 at noon", "ip"),
        ("a man, born 12.03.1961, with pain", "birthday"),
    ],
)
def test_personal_data_are_found_and_never_quoted(text: str, kind: str) -> None:
    names = ("email", "phone", "iban", "card", "ip", "birthday")
    found = broken(PromptRow(text), personal=names)
    assert ("personal", f"looks like {kind}") in found
    assert not any(text[8:14] in how for _, how in found)


@pytest.mark.parametrize("text", ["sort 31254=", "3.14 * 2.71 = ?", "12+34+56=", "version 1.2.3"])
def test_sums_and_versions_are_no_personal_data(text: str) -> None:
    names = ("email", "phone", "iban", "card", "ip", "birthday")
    assert broken(PromptRow(text), personal=names) == []


def test_each_rule_on_a_row_says_what_is_broken() -> None:
    row = PromptRow("{{name}} Привет, how", {"source": " ", "licence": "secret"})
    found = broken(
        row,
        shortest=50,
        scripts=("LATIN",),
        markers=("{{", "[INST]"),
        required=("source", "licence"),
        licences=("CC-BY-4.0",),
        patterns={"greeting": "Привет"},
    )
    assert [name for name, _ in found] == [
        "length", "language", "marker", "personal", "required", "licence"
    ]  # fmt: skip
    assert broken(PromptRow("x" * 11), longest=10) == [("length", "longer than 10 characters")]


def test_a_script_is_told_by_letters_alone() -> None:
    assert script_share("12 + 34 = ?", ("LATIN",)) == 1
    assert script_share("abc где", ("LATIN",)) == 0.5
    assert script_share("漢字 abc", ("CJK", "LATIN")) == 1


def test_the_first_of_equal_rows_stays_whatever_their_provenance() -> None:
    found = judged(
        [
            PromptRow("a", {"answer": "1", "source": "x"}, 1),
            PromptRow("a", {"answer": "1", "source": "y"}, 2),
            PromptRow("a", {"answer": "2", "source": "x"}, 3),
        ],
        Rules.model_validate({"required": ("source",)}),
    )
    assert dict(found.reasons) == {1: [("exact", "as row 1")]}


def test_near_rows_are_joined_within_a_person_and_reported_across_persons() -> None:
    pytest.importorskip("datasketch")
    given = owned(("a", NEAR), ("a", f"{NEAR}!"), ("b", f"{NEAR}."), ("b", "something else, long"))
    rules = Rules.model_validate({"person": "who", "near": 0.8})
    found = judged(given, rules)
    assert dict(found.reasons) == {1: [("near", "as row 1")]}
    assert found.reported == 2
    unowned = judged(given, Rules.model_validate({"near": 0.8}))
    assert list(unowned.reasons) == [1, 2]
    assert unowned.reported == 0


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasketch", None)
    with pytest.raises(SettingsError, match="datasketch") as raised:
        judged(rows("a", "b"), Rules.model_validate({"near": 0.8}))
    assert "fedgrpo[curation]" in raised.value.cure


texts = st.sampled_from(["a", "b", "a@b.example", "{{x}}"])


@given(
    mine=st.lists(texts, max_size=5),
    others=st.lists(st.tuples(st.sampled_from("bc"), texts), max_size=8),
)
def test_one_persons_rows_decide_nothing_about_anothers(
    mine: list[str], others: list[tuple[str, str]]
) -> None:
    rules = Rules.model_validate({"person": "who", "personal": ("email",), "markers": ("{{",)})
    without = owned(*others)
    with_me = owned(*others, *(("a", text) for text in mine))
    kept = judged(without, rules).kept(len(without))
    assert [place for place in judged(with_me, rules).kept(len(with_me)) if place < len(without)] \
        == kept  # fmt: skip


def test_what_is_never_or_always_solved_goes_and_a_share_of_the_former_can_stay() -> None:
    given = rows(*(f"prompt {n}" for n in range(200)))
    solved = {place: (0.0, 0.5, 1.0)[place % 3] for place in range(200) if place != 7}
    found = judged(given, Rules.model_validate({"samples": 8}), solved)
    assert all(found.reasons[p] == [("difficulty", "never solved")] for p in range(0, 200, 3))
    assert all(found.reasons[p] == [("difficulty", "always solved")] for p in range(2, 200, 3))
    assert not {1, 7} & found.reasons.keys(), "not asked about, or between"
    half = judged(given, Rules.model_validate({"samples": 8, "keep_unsolved": 0.5}), solved)
    spared = [p for p in range(0, 200, 3) if p not in half.reasons]
    assert 15 < len(spared) < 52
    assert set(range(2, 200, 3)) <= half.reasons.keys()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("nearr = 1", "nearr"),
        ("near = 2.0", "near"),
        ('personal = ["shoe"]', "shoe"),
        ('[patterns]\nx = "("', "no regular expression"),
        ("near = ", "TOML"),
    ],
)
def test_a_faulty_rules_file_is_refused_with_its_key(text: str, word: str, tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=word):
        Rules.read(file)
