"""Questions about endangered species, each beside the facts that the answer should rest on.

    python examples/species/questions.py        # writes questions.jsonl and held_out.jsonl

Nobody labelled an answer. Eight visitor centres see different species and different askers; the
last two species are held out. Facts are what encyclopaedias say, rounded; statuses are the IUCN's
of 2024.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import NamedTuple


class Species(NamedTuple):
    """What is known. ``number``: animals left in the wild, about."""

    name: str
    status: str
    home: str
    number: str
    threats: tuple[str, ...]
    helps: tuple[str, ...]


SPECIES = [
    Species("Amur leopard", "critically endangered", "forests of the Russian Far East", "130",
            ("poaching for its fur", "roads through the forest", "loss of deer to eat"),
            ("anti-poaching patrols", "a national park", "fewer fires set to clear land")),
    Species("vaquita", "critically endangered", "the northern Gulf of California", "10",
            ("gillnets set for other fish", "illegal trade in totoaba"),
            ("a ban on gillnets", "safer fishing gear", "buying fish caught without gillnets")),
    Species("kakapo", "critically endangered", "small islands off New Zealand", "240",
            ("rats and stoats that eat eggs", "few fertile males"),
            ("islands kept free of rats", "extra food in breeding years", "watching over nests")),
    Species("hawksbill turtle", "critically endangered", "coral reefs of warm seas", "20000",
            ("trade in its shell", "dying reefs", "light on nesting beaches"),
            ("not buying tortoiseshell", "dark beaches at night", "protected reefs")),
    Species("mountain gorilla", "endangered", "cloud forests of central Africa", "1060",
            ("snares set for antelopes", "diseases of people", "fields cut into the forest"),
            ("rangers who remove snares", "a distance of ten metres", "work for villages")),
    Species("black-footed ferret", "endangered", "prairies of North America", "370",
            ("plague in prairie dogs", "prairie turned into fields"),
            ("vaccines against plague", "ferrets bred and set free", "prairie left unploughed")),
    Species("European eel", "critically endangered", "rivers of Europe and the Sargasso Sea",
            "an unknown number of",
            ("dams and turbines", "smuggling of young eels", "dirty rivers"),
            ("passes around dams", "checks at airports", "cleaner rivers")),
    Species("axolotl", "critically endangered", "the canals of Xochimilco in Mexico", "1000",
            ("water full of sewage", "carp and tilapia that eat its eggs"),
            ("refuges behind filters of plants", "farming without pesticides")),
    Species("red panda", "endangered", "bamboo forests of the Himalaya", "10000",
            ("felling of forest", "dogs of herders", "trade in its fur"),
            ("forest guardians from villages", "vaccinated dogs", "corridors of bamboo")),
    Species("saiga", "near threatened", "steppes of Kazakhstan", "2800000",
            ("hunting for its horn", "fences", "an infection of cattle"),
            ("gaps in fences", "patrols on the steppe", "no trade in horn")),
]  # fmt: skip

ASKERS = [
    "A pupil of nine asks: {}", "For a school talk: {}", "Visitor at the desk: {}",
    "{} I have five minutes.", "My grandmother would like to know: {}", "A hiker writes: {}",
    "{} Please be brief.", "From the suggestion box: {}",
]  # fmt: skip
"""One a centre."""

QUESTIONS = [
    "How can I help the {}?", "Why is the {} rare?", "What should people not do near a {}?",
    "Is the {} going to die out?", "Can I keep a {} at home?", "What does the {} need most?",
    "Where does the {} live, and who protects it?", "I found a hurt {}. What now?",
    "Should we feed the {}?", "What can a town do for the {}?",
]  # fmt: skip


def told(species: Species, draw: random.Random) -> str:
    """Its facts in a sentence or three, in changing order."""
    threats = draw.sample(species.threats, len(species.threats))
    helps = draw.sample(species.helps, len(species.helps))
    return (
        f"The {species.name} is {species.status}. About {species.number} live in {species.home}. "
        f"Threats: {', '.join(threats)}. What helps: {', '.join(helps)}."
    )


def row(species: Species, asked: str, centre: int, draw: random.Random) -> dict[str, object]:
    """One row of a prompt file."""
    facts = told(species, draw)
    question = ASKERS[centre].format(asked.format(species.name))
    prompt = f"Facts: {facts}\n{question}\nAnswer in two or three sentences, from the facts only."
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "facts": facts,
        "species": species.name,
        "centre": f"centre-{centre + 1}",
    }


def rows(species: list[Species], centre: int, count: int, seed: int) -> list[dict[str, object]]:
    """Rows of one centre, no two alike; it sees some species more than others."""
    draw = random.Random(f"{seed} {centre}")
    seen = [draw.gammavariate(0.7, 1) + 0.1 for _ in species]
    found: dict[str, dict[str, object]] = {}
    while len(found) < count:
        one = row(draw.choices(species, seen)[0], draw.choice(QUESTIONS), centre, draw)
        found.setdefault(json.dumps(one["prompt"]), one)
    return list(found.values())


def write(path: Path, rows: list[dict[str, object]]) -> None:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description="Questions to eight visitor centres.")
    parser.add_argument("--each", type=int, default=150, help="questions a centre")
    parser.add_argument("--held-out", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--directory", type=Path, default=Path(__file__).parent)
    given = parser.parse_args()
    centres = [rows(SPECIES[:-2], c, given.each, given.seed) for c in range(len(ASKERS))]
    write(given.directory / "questions.jsonl", [one for centre in centres for one in centre])
    write(given.directory / "held_out.jsonl", rows(SPECIES[-2:], 0, given.held_out, given.seed))


if __name__ == "__main__":
    main()
