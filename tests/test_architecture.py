"""The house: rooms in layers, arrows downwards, no circles, few children, one vocabulary.

What does not fit yet is listed with it, and a list that is longer than needed fails too: so the
lists can only become shorter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rooms import (
    PACKAGE,
    ROOT,
    arrows,
    child_of,
    children,
    circles,
    graph,
    imported,
    modules,
    rooms,
    words,
)

LAYERS = """
    ground
    ground.parts
    settings.bounds
    settings.sections
    settings.protocols.base
    settings.protocols.committee
    settings.protocols
    settings
    attacks
    robust
    report.records
    report.reader
    report.writer
    report.run_directory
    report.trackers
    report.figures
    report.wording
    report.plots
    report.console
    report.page
    report.watch
    report
    privacy.accounting
    site.refusals
    site.limits
    site.account
    site.experience
    site
    data.files
    data
    data.curation
    model.kernels
    model.family
    model.export
    model
    privacy
    ledger
    rewards.registry
    rewards.calling
    rewards.verifiable
    rewards.judges
    rewards
    rewards.apart
    rewards.sandboxed
    grpo.rollout.choice
    grpo.rollout
    grpo.learning.losses
    grpo.learning.advantages
    grpo.learning
    grpo.methods.credit
    grpo.methods.guidance
    grpo.methods
    grpo.isolated
    grpo
    standalone
    standalone.curation
    secure
    secure.committee.steps
    secure.committee.keys
    secure.committee.compute
    secure.committee.compute.circuits
    secure.committee.sharing
    secure.committee.links
    secure.committee
    federation.wire
    federation.state
    federation.protocols
    federation.protocols.plain
    federation.protocols.buckets
    federation.protocols.committee.convening
    federation.protocols.committee
    federation.node.clients
    federation.node.answers
    federation.node.clock
    federation.node.residence
    federation.node
    federation.server
    federation.simulation.batched
    federation.simulation
    federation.simulation.sweep
    federation.deployment.log
    federation.deployment
    federation.deployment.flower_internals
    federation.deployment.units
    federation.deployment.invitation
    federation.deployment.executor
    federation.deployment.gateway.refused
    federation.deployment.gateway.rates
    federation.deployment.gateway.bodies
    federation.deployment.gateway.enrolment
    federation.deployment.gateway
    federation.deployment.operator
    federation.deployment.operator.runs
    federation.deployment.operator.runs.watch
    federation.deployment.site.site_file
    federation.deployment.site.greeting
    federation.deployment.site.watch
    federation.deployment.site.joining
    federation.deployment.site
    federation.deployment.doctor.troubles
    federation.deployment.doctor.finding
    federation.deployment.doctor.line
    federation.deployment.doctor.look
    federation.deployment.doctor.surroundings
    federation.deployment.doctor.registry
    federation.deployment.doctor.checks
    federation.deployment.doctor
    federation.rehearsal
    federation.audit
    federation
    cli.options
    cli.outcome
    cli.planning
    cli.runs
    cli.operator
    cli.site
    cli
"""
"""From the lowest: nothing imports what stands below it here. A room that is named together with
its inner rooms stands for the files that lie directly in it."""

MOST_CHILDREN, MOST_ARROWS = 13, 20
CROWDED: dict[str, tuple[int, int]] = {}
"""Children and arrows of rooms that still have more."""

MOST_ARROWS_OF_THE_HOUSE = 30
"""Between rooms of the outermost floor, besides those onto settings and ground."""

WITHOUT_TORCH = ["ground", "attacks", "robust", "report", "site", "data", "ledger", "secure"]
PUBLIC_FLOWER = ["flwr.app", "flwr.clientapp", "flwr.serverapp"]
PRIVATE_FLOWER = [
    "federation.simulation.flower_internals",
    "federation.deployment.flower_internals",
]
"""One file, or one small room, for each room that needs them."""

LOSERS = {"holder", "finisher", "mate", "holders", "finishers", "mates"}
"""Words of the house that gave way to the field's: client, participant, peer."""

PAGE = (ROOT / "docs" / "architecture.md").read_text()


def short(name: str) -> str:
    return name.removeprefix(PACKAGE).removeprefix(".")


def inner(room: str) -> str:
    return f"{PACKAGE}.{room}"


def floor(name: str) -> tuple[int, str]:
    """Height and name of the layer that a module belongs to: the longest that fits."""
    order = LAYERS.split()
    fitting = [layer for layer in order if f"{short(name)}.".startswith(f"{layer}.")]
    layer = max(fitting, key=len, default="")
    return (order.index(layer), layer) if layer else (len(order), "")


def upwards() -> Iterator[tuple[str, str]]:
    for name, others in graph().items():
        for other in others:
            (height, layer), (above, other_layer) = floor(name), floor(other)
            if above > height:
                yield layer, other_layer


def test_every_room_has_its_layer() -> None:
    assert len(set(LAYERS.split())) == len(LAYERS.split())
    named = {inner(layer) for layer in LAYERS.split()}
    assert named <= set(modules()), "a layer that is no room and no module"
    assert set(rooms()) - {PACKAGE} <= named, "a room has none"


def test_arrows_run_downwards() -> None:
    assert not set(upwards())


def test_no_modules_import_each_other() -> None:
    assert not [" ".join(map(short, circle)) for circle in circles(graph())]


@pytest.mark.parametrize("room", rooms()[1:], ids=short)
def test_a_room_can_be_surveyed(room: str) -> None:
    inside, between = len(children(room)), len(arrows(room))
    most_inside, most_between = CROWDED.get(short(room), (MOST_CHILDREN, MOST_ARROWS))
    assert inside <= most_inside
    assert between <= most_between
    if short(room) in CROWDED:
        assert inside > MOST_CHILDREN or between > MOST_ARROWS, "it fits: take it off the list"


def test_the_house_can_be_surveyed() -> None:
    between = [pair for pair in arrows(PACKAGE) if pair[1] not in ("settings", "ground")]
    assert len(between) <= MOST_ARROWS_OF_THE_HOUSE


def test_only_the_federation_knows_flower_and_two_places_its_private_parts() -> None:
    for name in modules():
        for flower in (other for other in imported(name) if other.split(".")[0] == "flwr"):
            assert child_of(PACKAGE, name) == "federation", f"{name} imports {flower}"
            public = any(f"{flower}.".startswith(f"{each}.") for each in PUBLIC_FLOWER)
            place = any(f"{short(name)}.".startswith(f"{each}.") for each in PRIVATE_FLOWER)
            assert public or place, f"{name} imports {flower}"


@pytest.mark.slow
@pytest.mark.parametrize("room", WITHOUT_TORCH)
def test_a_room_without_torch(room: str) -> None:
    for name in modules():
        if f"{name}.".startswith(f"{inner(room)}."):
            heavy = {other.split(".")[0] for other in imported(name)} & {"torch", "transformers"}
            assert not heavy, f"{name} imports {heavy}"


@pytest.mark.slow
def test_no_file_is_longer_than_500_lines() -> None:
    assert all(len(file.read_text().splitlines()) <= 500 for file in modules().values())


@pytest.mark.slow
def test_nobody_asks_which_protocol_runs() -> None:
    """Who needs to know asks the protocol itself, see fedgrpo.settings.protocols."""
    asks = re.compile(r"protocol *(==|!=)|protocol in \(|noise_by\(")
    assert not [name for name, file in modules().items() if asks.search(file.read_text())]


def test_one_word_for_one_thing() -> None:
    assert not [name for name in modules() if words(name) & LOSERS]


def test_the_glossary_fits_on_a_page() -> None:
    glossary = PAGE.partition("## Glossary")[2].partition("\n## ")[0]
    terms = re.findall(r"^\| \*\*(.+?)\*\* \|", glossary, re.MULTILINE)
    assert 20 <= len(terms) <= 40
    assert len(set(terms)) == len(terms)


def test_files_and_rooms_that_the_page_names_are_there() -> None:
    named = re.findall(r"`([a-z_/]+(?:\.py|/))`", PAGE)
    assert named
    missing = [path for path in named if not any((base / path).exists() for base in bases())]
    assert not missing


def bases() -> tuple[Path, ...]:
    return ROOT / PACKAGE, ROOT


def test_the_page_has_a_line_for_every_room() -> None:
    assert not [room for room in rooms()[1:] if f"`{short(room).replace('.', '/')}/`" not in PAGE]
