"""Made-up notes of nine clinics, and of a tenth that no clinic trains on.

    python examples/wards/notes.py              # writes notes.jsonl and held_out.jsonl beside it
    python examples/wards/notes.py --each 50 --seed 1

No patient is behind any of them. A note joins a complaint (which says the ward), a course (which
says the urgency), and what says neither, in the style of its clinic. Clinics differ in style and
in the wards that they see most.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

WARDS: dict[str, list[str]] = {
    "heart": [
        "chest tightness on the stairs",
        "palpitations",
        "swollen ankles and short breath at night",
        "an irregular pulse",
        "pressure behind the breastbone",
        "chest pain into the left arm",
        "fainting with a slow pulse",
        "a racing heart at rest",
        "high blood pressure with headache",
        "a heart murmur heard by the school doctor",
        "missed tablets for atrial fibrillation",
        "breathlessness when lying flat",
        "a pacemaker that beeps",
        "chest pain after shovelling",
    ],
    "bones": [
        "a wrist bent after a fall",
        "a locked knee",
        "hip pain and no weight on the leg",
        "an ankle twisted on the kerb",
        "a dislocated shoulder",
        "a finger crushed in a door",
        "back pain after lifting crates",
        "a swollen knee after football",
        "a broken collarbone",
        "a cast that has become too tight",
        "a stiff shoulder",
        "heel pain in the morning",
        "a toe broken on a chair",
        "elbow pain after tennis",
    ],
    "brain": [
        "weakness of the right side",
        "a second seizure",
        "the worst headache of a lifetime",
        "numb fingers and dropped cups",
        "double vision",
        "slurred speech",
        "a drooping face",
        "memory gaps",
        "a trembling hand",
        "a spinning room",
        "tingling in both feet",
        "migraine with flickering lights",
        "blackouts with twitching",
        "trouble finding words",
    ],
    "skin": [
        "a mole that changed colour",
        "itchy patches behind the knees",
        "blisters after sunbathing",
        "a black nail",
        "scaly plaques on the elbows",
        "a rash from a new soap",
        "hives",
        "a wart on the sole",
        "acne with scars",
        "a ring-shaped rash",
        "peeling skin on the hands",
        "hair falling out in patches",
        "an itching scalp",
        "a sore on the lip that will not heal",
    ],
    "mind": [
        "racing thoughts and no sleep",
        "voices that comment",
        "fear of leaving the house",
        "low mood",
        "panic in the supermarket",
        "thoughts of suicide",
        "washing hands for hours",
        "a belief of being watched",
        "nightmares after an accident",
        "no appetite and no joy",
        "spending sprees and no rest",
        "cutting of the forearms",
        "worry about everything",
        "drinking more since the divorce",
    ],
}

COURSES: dict[int, list[str]] = {
    5: ["collapsed in the waiting room", "hardly responds", "grey and sweating, pulse weak",
        "needs help now", "getting unconscious", "came by ambulance with sirens"],
    4: ["getting worse by the hour", "in severe pain", "cannot stand any more",
        "much worse since this morning", "crying with distress", "worse with every hour"],
    3: ["uncomfortable but stable", "wants to be seen today", "moderate since yesterday",
        "no better after two days", "troubled but calm", "cannot work with it"],
    2: ["mild for a week", "comes with a letter of the family doctor", "a nuisance at times",
        "slowly better", "only now and then", "mild and not changing"],
    1: ["routine follow-up", "asks for a repeat prescription", "needs a form signed",
        "yearly check only", "wants a second opinion some day", "no complaint at present"],
}  # fmt: skip

ASIDES = [
    "no allergies known", "lives alone", "non-smoker", "takes no tablets", "works at the bakery",
    "speaks little English", "insured", "last meal at noon", "walks with a stick", "new in town",
    "daughter is with the patient", "retired teacher", "smokes ten a day", "allergic to penicillin",
    "seen here in spring", "phone number is on file", "prefers mornings", "drives a lorry",
]  # fmt: skip


class Facts(NamedTuple):
    """What a note is made of. ``age`` in years."""

    ward: str
    urgency: int
    complaint: str
    course: str
    aside: str
    sex: str
    age: int


Style = Callable[[Facts], str]


def _shouted(f: Facts) -> str:
    return f"{f.age}{f.sex[0]} {f.complaint} -- {f.course} -- {f.aside}".upper()


STYLES: list[Style] = [
    lambda f: f"{f.age}-year-old {f.sex} with {f.complaint}. {f.course.capitalize()}. {f.aside}.",
    lambda f: f"Pt {f.age}{f.sex[0]}: {f.complaint}; {f.course} ({f.aside})",
    lambda f: f"{f.course.capitalize()}. Reports {f.complaint}. Age {f.age}. {f.aside}.",
    lambda f: f"Seen at triage, {f.sex}, {f.age}: {f.complaint}, {f.course}, {f.aside}.",
    lambda f: f"Phone note - {f.aside} - {f.complaint} ({f.age}y). {f.course.capitalize()}!",
    lambda f: f"{f.sex} / {f.age} / {f.complaint} / {f.course} / {f.aside}",
    lambda f: f"The family says: {f.complaint}, {f.course}. The {f.sex} is {f.age}, {f.aside}.",
    lambda f: f"Dear colleague, I send you a {f.sex} of {f.age} for {f.complaint}; {f.course}.",
    _shouted,
    lambda f: f"S: {f.complaint}. O: {f.course}. A: {f.sex}, {f.age}. P: {f.aside}.",
]
"""One a clinic; the last is the tenth clinic's, of which nothing is trained on."""

QUESTION = """Note: {note}
Answer in JSON with a short reason, one ward of {wards}, and the urgency from 1 to 5: \
{{"reason": "...", "ward": "...", "urgency": 3}}"""
"""The reason comes first, so that the ward is chosen with the complaint just said."""


def facts(draw: random.Random, ward: str, urgency: int) -> Facts:
    """What else is true of a patient."""
    return Facts(
        ward, urgency, draw.choice(WARDS[ward]), draw.choice(COURSES[urgency]),
        draw.choice(ASIDES), draw.choice(["man", "woman"]), draw.randrange(16, 95),
    )  # fmt: skip


def rows(clinic: int, count: int, seed: int) -> list[dict[str, object]]:
    """Rows of one clinic: chat prompt, clinic, note, ward, urgency. No two notes are alike.

    The tenth clinic sees each ward with each urgency in turn, so that of its first 25 notes no
    answer that is always the same has more than a fifth of the wards.
    """
    draw, wards, urgencies = random.Random(f"{seed} {clinic}"), list(WARDS), list(COURSES)
    even = clinic == len(STYLES) - 1
    seen = [] if even else [draw.gammavariate(0.7, 1) + 0.1 for _ in WARDS]
    notes: dict[str, Facts] = {}
    while len(notes) < count:
        place = len(notes)
        if even:
            ward, urgency = wards[place % 5], urgencies[place // 5 % 5]
        else:
            ward, urgency = draw.choices(wards, seen)[0], draw.choice(urgencies)
        patient = facts(draw, ward, urgency)
        notes.setdefault(STYLES[clinic](patient), patient)
    return [row(clinic, note, patient) for note, patient in notes.items()]


def row(clinic: int, note: str, patient: Facts) -> dict[str, object]:
    """One row of a prompt file."""
    question = QUESTION.format(note=note, wards=_listed(note))
    return {
        "prompt": [{"role": "user", "content": question}],
        "clinic": f"clinic-{clinic + 1}",
        "note": note,
        "ward": patient.ward,
        "urgency": patient.urgency,
    }


def _listed(note: str) -> str:
    """The wards in an order of this note's own: no ward is the first that is named more often."""
    wards = random.Random(note).sample(list(WARDS), len(WARDS))
    return f"{', '.join(wards[:-1])} or {wards[-1]}"


def write(path: Path, rows: list[dict[str, object]]) -> None:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description="Notes of nine clinics, and of a tenth.")
    parser.add_argument("--each", type=int, default=400, help="notes a clinic")
    parser.add_argument("--held-out", type=int, default=200, help="notes of the tenth clinic")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--directory", type=Path, default=Path(__file__).parent)
    given = parser.parse_args()
    clinics = [rows(clinic, given.each, given.seed) for clinic in range(len(STYLES) - 1)]
    write(given.directory / "notes.jsonl", [row for clinic in clinics for row in clinic])
    write(given.directory / "held_out.jsonl", rows(len(STYLES) - 1, given.held_out, given.seed))


if __name__ == "__main__":
    main()
