"""The pages that are written from the code are up to date, and every page is on the site."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import troubleshooting_page
from tests.errors_page import classes, page

ROOT = Path(__file__).parents[1]


def test_every_error_class_has_its_section() -> None:
    assert (ROOT / "docs" / "errors.md").read_text() == page(), "python -m tests.errors_page"
    assert len(classes()) > 15
    assert all(kind.__doc__ for kind in classes())


def test_every_code_that_a_site_may_see_is_on_its_page() -> None:
    written = (ROOT / "docs" / "troubleshooting.md").read_text()
    assert written == troubleshooting_page.page(), "python -m tests.troubleshooting_page"


def test_every_page_is_on_the_site() -> None:
    named = set(re.findall(r"[\w-]+\.md$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert named == {path.name for path in ROOT.glob("docs/*.md")}


def test_versions_that_the_page_names_are_those_that_are_pinned() -> None:
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M))
    rows = re.findall(
        r"^\| `([\w-]+)` \| (\d\S*) \|", (ROOT / "docs" / "versions.md").read_text(), re.M
    )
    assert len(rows) > 10
    assert {name: pinned[name] for name, _ in rows} == dict(rows)


def test_the_least_versions_that_the_page_names_are_those_that_are_asked_for() -> None:
    asked = dict(
        re.findall(r'"([\w-]+)(?:\[[\w,-]+\])?>=([\d.]+)', (ROOT / "pyproject.toml").read_text())
    )
    rows = re.findall(
        r"^\| `([\w-]+)` \| \d\S* \| ([\d.]+)", (ROOT / "docs" / "versions.md").read_text(), re.M
    )
    assert len(rows) > 10
    assert {name: asked[name] for name, _ in rows} == dict(rows)


@pytest.mark.parametrize("script", ["robustness_table.py", "small_epsilon_table.py"])
def test_every_table_of_measured_rows_is_made_from_them(script: str) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / script, "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
