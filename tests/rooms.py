"""The house in figures: ``python -m tests.rooms`` prints children and arrows of every room.

A room is a package, its children are what lies directly in it (modules and rooms), and an arrow
says that something in one child imports something in another. Imports for type checkers count: a
reader follows them like any other.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "fedgrpo"

Graph = Mapping[str, Set[str]]
"""Modules of the package that each module imports."""


@dataclass(frozen=True)
class Lines:
    """Lines of some modules; blank ones and comments are in the total only."""

    code: int
    docstring: int
    imports: int
    total: int


@cache
def modules() -> dict[str, Path]:
    """Files by dotted name; a room's own name is its ``__init__``."""
    files = sorted((ROOT / PACKAGE).rglob("*.py"))
    return {_name(file): file for file in files}


def _name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


@cache
def parsed(name: str) -> ast.Module:
    return ast.parse(modules()[name].read_text())


def imported(name: str) -> Iterator[str]:
    """Everything that a module imports: dotted names, with those taken ``from`` them."""
    for node in ast.walk(parsed(name)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{name} imports relatively"
            assert not node.level, f"{name} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def graph() -> Graph:
    """What each module of the package imports of the package."""
    return {name: _inside(imported(name)) - {name} for name in modules()}


def _inside(names: Iterator[str]) -> set[str]:
    closest = (n if n in modules() else n.rpartition(".")[0] for n in names)
    return {name for name in closest if name in modules()}


@cache
def rooms() -> tuple[str, ...]:
    """Every package, from the outermost."""
    return tuple(name for name, file in modules().items() if file.name == "__init__.py")


def children(room: str) -> set[str]:
    """What lies directly in a room."""
    return {child for name in modules() if (child := child_of(room, name))}


def child_of(room: str, name: str) -> str:
    """The child of a room that a module is, or is in; empty if it is in none."""
    inside = name.startswith(f"{room}.")
    return name.removeprefix(f"{room}.").partition(".")[0] if inside else ""


def arrows(room: str) -> set[tuple[str, str]]:
    """Pairs of children of which the first imports the second."""
    ends = (
        (child_of(room, name), child_of(room, other))
        for name, others in graph().items()
        for other in others
    )
    return {(a, b) for a, b in ends if a and b and a != b}


def circles(edges: Graph) -> list[list[str]]:
    """Groups of nodes each of which leads to all others of its group, by Kosaraju's two passes."""
    done: dict[str, None] = {}
    for node in edges:
        _visit(node, edges, done)
    backwards = {node: {a for a, others in edges.items() if node in others} for node in edges}
    seen: dict[str, None] = {}
    groups = []
    for node in reversed(done):
        before = set(seen)
        _visit(node, backwards, seen)
        groups.append(sorted(set(seen) - before))
    return [group for group in groups if len(group) > 1]


def _visit(start: str, edges: Graph, done: dict[str, None]) -> None:
    """Add what can be reached from a node to those done, each after what it leads to."""
    open_ = {start: iter(sorted(edges[start]))} if start not in done else {}
    while open_:
        node = next(reversed(open_))
        fresh = (other for other in open_[node] if other not in done and other not in open_)
        following = next(fresh, None)
        if following is not None:
            open_[following] = iter(sorted(edges[following]))
            continue
        done[node] = None
        del open_[node]


def lines(name: str) -> Lines:
    """Count a module's lines."""
    text = modules()[name].read_text().splitlines()
    docstring, imports = set[int](), set[int]()
    for node in ast.walk(parsed(name)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        elif isinstance(node, ast.Expr) and _is_text(node.value):
            docstring |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    other = docstring | imports
    code = [
        line
        for number, line in enumerate(text, 1)
        if number not in other and line.strip() and not line.strip().startswith("#")
    ]
    return Lines(len(code), len(docstring), len(imports), len(text))


def _is_text(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def words(name: str) -> set[str]:
    """Words of all identifiers that a module makes or uses, in lower case."""
    fields = ("name", "id", "attr", "arg", "asname")
    named = (getattr(node, field, None) for node in ast.walk(parsed(name)) for field in fields)
    parts = (re.findall(r"[A-Z]?[a-z]+|[A-Z]+", text) for text in named if isinstance(text, str))
    return {part.lower() for found in parts for part in found}


def main() -> None:
    """Print the figures that docs/architecture.md ends with."""
    counted = [lines(name) for name in modules()]
    total = sum(each.total for each in counted)
    imports = sum(each.imports for each in counted)
    print(
        f"{len(counted)} files, {total} lines: code {sum(each.code for each in counted)}, "
        f"docstrings {sum(each.docstring for each in counted)}, "
        f"imports {imports} ({imports / total:.1%})"
    )
    for circle in circles(graph()):
        print("circle:", ", ".join(circle))
    for room in rooms():
        print(f"{room}: {len(children(room))} children, {len(arrows(room))} arrows")


if __name__ == "__main__":
    main()
