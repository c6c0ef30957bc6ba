"""The examples whose clients keep notes: their rows and what answers to them are worth."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
SMOLLM2 = ROOT / "models" / "smollm2"
NOTE = "Pt 57w: tingling in both feet; in severe pain (new in town)"
FACTS = "The kakapo is critically endangered. About 240 live in small islands off New Zealand."


FORM = ("valid_json", "right_keys", "right_values")


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name.replace("/", "_"), EXAMPLES / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def said(*texts: str) -> list[Any]:
    return [[{"role": "assistant", "content": text}] for text in texts]


@pytest.mark.parametrize("clinic", range(10))
def test_a_clinic_has_as_many_different_notes_as_asked_for(clinic: int) -> None:
    rows = example("wards/notes").rows(clinic, 120, 0)
    assert len({row["note"] for row in rows}) == 120
    assert {row["clinic"] for row in rows} == {f"clinic-{clinic + 1}"}
    assert {row["urgency"] for row in rows} == {1, 2, 3, 4, 5}


def test_clinics_write_in_styles_of_their_own() -> None:
    notes = example("wards/notes")
    patient = notes.Facts("heart", 3, "palpitations", "in pain", "insured", "man", 40)
    assert len({style(patient) for style in notes.STYLES}) == len(notes.STYLES) == 10


def test_the_tenth_clinic_sees_each_ward_with_each_urgency_alike() -> None:
    rows = example("wards/notes").rows(9, 50, 0)
    seen = Counter((row["ward"], row["urgency"]) for row in rows[:25])
    assert len(seen) == 25
    assert Counter((row["ward"], row["urgency"]) for row in rows[25:]) == seen


def test_a_good_answer_is_worth_all_of_every_reward() -> None:
    rewards = example("wards/rewards")
    answer = {"ward": "brain", "urgency": 4, "reason": "tingling in both feet, severe pain"}
    given = {"ward": ["brain"], "urgency": [4], "note": [NOTE]}
    names = (*FORM, "right_ward", "near_urgency", "grounded_reason")
    for name in names:
        assert getattr(rewards, name)(completions=said(json.dumps(answer)), **given) == [1.0], name


@pytest.mark.parametrize(
    ("name", "answers", "worth"),
    [
        ("valid_json", ['{"ward": 1}', '{"ward": ', "[1]", "no"], [1.0, 0.3, 0.0, 0.0]),
        ("right_keys", ['{"ward": 1}', '{"ward": 1, "x": 2}', "{}"], [1 / 3, 0.0, 0.0]),
        ("right_values", ['{"ward": "mind"}', '{"ward": ["mind"]}', "[]"], [1 / 3, 0.0, 0.0]),
        (
            "right_values",
            ['{"urgency": 5}', '{"urgency": 6}', '{"urgency": "5"}'],
            [1 / 3, 0.0, 0.0],
        ),
        ("right_values", ['{"reason": "low mood"}', '{"reason": "low"}'], [1 / 3, 0.0]),
        ("right_ward", ['{"ward": "brain"}', '{"ward": ["brain"]}'], [1.0, 0.0]),
        ("near_urgency", ['{"urgency": 4}', '{"urgency": 3}', '{"urgency": 2}'], [1.0, 0.5, 0.0]),
        ("near_urgency", ['{"urgency": true}', '{"urgency": "4"}', "{}"], [0.0, 0.0, 0.0]),
        ("grounded_reason", ['{"reason": "severe pain"}', '{"reason": "of the"}'], [2 / 3, 0.0]),
        ("grounded_reason", ['{"reason": "fever fever fever"}', '{"reason": 3}'], [0.0, 0.0]),
    ],
)
def test_half_an_answer_is_worth_its_part(
    name: str, answers: list[str], worth: list[float]
) -> None:
    count = len(answers)
    given = {"ward": ["brain"] * count, "urgency": [4] * count, "note": [NOTE] * count}
    reward = getattr(example("wards/rewards"), name)
    assert reward(completions=said(*answers), **given) == pytest.approx(worth)


def test_a_reason_that_copies_the_whole_note_gives_no_reason() -> None:
    copied = json.dumps({"reason": f"{NOTE} {NOTE}"})
    assert example("wards/rewards").grounded_reason(said(copied), note=[NOTE]) == [0.0]


def test_held_out_species_are_seen_by_no_centre() -> None:
    questions = example("species/questions")
    seen = {
        row["species"] for c in range(8) for row in questions.rows(questions.SPECIES[:-2], c, 40, 0)
    }
    assert not seen & {species.name for species in questions.SPECIES[-2:]}


@pytest.mark.parametrize(
    ("answer", "worth"),
    [
        ("You can feed it bread.", 0.0),
        ("Never feed it bread.", 1.0),
        ("Give it a name and keep it as a pet.", 0.0),
        ("Do not touch it; call the rangers.", 1.0),
    ],
)
def test_advice_that_harms_is_told_from_advice_against_it(answer: str, worth: float) -> None:
    assert example("species/rewards").harmless(said(answer)) == [worth]


def test_a_number_that_no_fact_has_is_invented() -> None:
    answers = said("About 240 live there.", "About 2,400 live there.", "")
    reward = example("species/rewards").no_invented_numbers
    assert reward(answers, facts=[FACTS] * 3) == [1.0, 0.0, 0.0]


def test_an_answer_of_words_from_nowhere_is_not_grounded() -> None:
    answers = said("Bananas are yellow.", "The kakapo is critically endangered.", "")
    worth = example("species/rewards").grounded(answers, facts=[FACTS] * 3)
    assert worth[0] == worth[2] == 0.0
    assert worth[1] == pytest.approx(3 / 10)


@pytest.mark.slow
@pytest.mark.skipif(not SMOLLM2.is_dir(), reason="no models/smollm2: make smollm2 fetches it")
@pytest.mark.parametrize(
    "scenario",
    [
        "wards_small",
        pytest.param("wards", marks=pytest.mark.soak),
        pytest.param("wards_small_private", marks=pytest.mark.soak),
    ],
)
def test_two_rounds_of_the_wards_run_on_a_real_model(scenario: str, tmp_path: Path) -> None:
    from fedgrpo import simulate
    from fedgrpo.settings.scenario import load_scenario

    notes, own, held_out = example("wards/notes"), tmp_path / "own.jsonl", tmp_path / "held.jsonl"
    notes.write(own, [row for clinic in range(4) for row in notes.rows(clinic, 20, 0)])
    notes.write(held_out, notes.rows(9, 2, 0))
    changes = {
        "rounds": 2,
        "simulation.clients": 4,
        "federation.min_clients": 4,
        "data.source": str(own),
        "data.min_prompts": 20,
        "grpo.prompts_per_step": 1,
        "grpo.group_size": 2,
        "grpo.max_completion_length": 8,
        "grpo.overlong_share": 0.1,  # So that what is cut at eight tokens teaches something, too.
        "privacy.max_epsilon": 1e6,
        "evaluation.source": str(held_out),
    }
    result = simulate(load_scenario(ROOT / "simulations" / f"{scenario}.toml", changes, ROOT))
    assert [row.applied for row in result.history] == [False, True, True]
    assert np.isfinite(result.adapter.vector).all()
    assert {name.rpartition(":")[2] for name in result.history[-1].held_out_rewards} == {
        *FORM, "right_ward", "near_urgency", "grounded_reason",
    }  # fmt: skip
