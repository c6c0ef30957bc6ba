"""The page: one file without network or scripts, whatever a run holds, and what it promises."""

import re
import stat
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedgrpo.cli.app import app
from fedgrpo.ground.files import replace_file
from fedgrpo.ground.records import Guarantee, Sample
from fedgrpo.report import RoundRow, RunWriter
from fedgrpo.report.figures import Series
from fedgrpo.report.page import CheckedLedger, render
from fedgrpo.report.page.charts import banded
from fedgrpo.report.reader import read_run
from fedgrpo.report.run_directory import RunDirectory
from fedgrpo.settings import Settings
from tests.report.alone import write
from tests.report.runs import SUMMARY, round_row, run

EVIL = "</td></svg><script>alert('1')</script><img src=x onerror=alert(2)>"
NOTHING_TO_CLOSE = {"meta", "circle", "line", "path", "rect", "use", "stop"}
SETTINGS = Settings.from_mapping({"rounds": 6, "privacy": {"max_epsilon": 30.0}})


class Parsed(HTMLParser):
    """What a page is made of; fails if elements are not nested as they were opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._open += [] if tag in NOTHING_TO_CLOSE else [tag]
        for name, value in attrs:
            assert not name.startswith("on")
            self.links += [value or ""] if name in ("src", "href", "xlink:href", "action") else []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in NOTHING_TO_CLOSE:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in NOTHING_TO_CLOSE:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def federation(folder: Path, rows: Sequence[RoundRow], *, finished: bool = True) -> Path:
    with RunDirectory(folder, resumes=False).claim(SETTINGS):
        writer = RunWriter(folder)
        writer.phase(1, 6, "train")
        for text, number in (("no idea", 0), ("42", 6)):
            reward = {"exact_match": float(number > 0)}
            kept = Sample(
                prompt="6*7=", completion=text, reward=reward["exact_match"], rewards=reward
            )  # type: ignore[arg-type]
            writer.samples(number, [kept])
        for row in rows:
            writer.row(row)
        if finished:
            writer.summary(SUMMARY)
    return folder


def page(*folders: Path, ledger: CheckedLedger | None = None) -> Parsed:
    return Parsed(render([read_run(each) for each in folders], [ledger] * len(folders)))


LEDGER = CheckedLedger(
    True,
    "The record has 6 rounds and its end.",
    {"Root": "ab" * 32},
    {"the server": Series([0, 1, 2], [0, 1, 1.5]), "one member": Series([0, 1, 2], [0, 2, 3])},
    (Guarantee("prompt", "the server", 1.5, 1e-5),),
)


def test_a_page_has_every_part_and_fetches_nothing(tmp_path: Path) -> None:
    rows = [
        replace(
            row,
            held_out_rewards={"exact_match": {"sampled": 0.3, "greedy": 0.4}},
            held_out_by={"add": {"sampled": 0.25, "greedy": 0.5}},
            bytes={"sent": 2_000_000, "received": 3_000_000},
        )
        for row in run(6)
    ]
    found = page(federation(tmp_path / "demo", rows), ledger=LEDGER)
    for words in (
        "Held-out reward",
        "Reward in training",
        "Reward: exact_match",
        "Held-out: add",
        "KL to the start",
        "Norms",
        "Privacy spent: epsilon",
        "one member",
        "Traffic, MB",
        "Clients",
        "Time of a round",
        "What is guaranteed, and what is not",
        "epsilon 5.39, delta 1e-05",
        "at most 219 times as likely",
        "Up to 1 of 3 group means may be forged",
        "no idea",
        "The record has 6 rounds and its end.",
        "ab" * 32,
        "privacy.max_epsilon",
    ):
        assert words in found.text
    assert not {"script", "link", "iframe", "img", "form"} & set(found.tags)
    assert all(link.startswith("#") for link in found.links)


def test_single_clients_are_not_called_means_of_groups(tmp_path: Path) -> None:
    rows = [replace(row, buckets=row.finished) for row in run(3)]
    text = page(federation(tmp_path / "demo", rows), ledger=LEDGER).text
    assert "Up to 1 of 11 clients may send forged updates" in text
    assert "group means" not in text


def test_whatever_comes_from_a_run_is_escaped(tmp_path: Path) -> None:
    folder = tmp_path / EVIL.replace("/", "∕")
    name = f"{EVIL}:{EVIL}"
    row = replace(
        round_row(2, applied=False, reason=EVIL),
        held_out_by={EVIL: {"sampled": 0.1}},
        held_out_rewards={name: {"sampled": 0.2}},
        metrics={f"rewards/{name}": 0.5, "reward": 0.5},
    )
    federation(folder, [round_row(1), row], finished=False)
    writer = RunWriter(folder)
    writer.samples(0, [Sample(prompt=EVIL, completion=EVIL, reward=0.0, rewards={EVIL: 1.0})])
    writer.fail(EVIL, EVIL)
    ledger = replace(
        LEDGER, fits=False, words=EVIL, facts={EVIL: EVIL}, epsilon={EVIL: Series([0], [1])}
    )
    for folders in ([folder], [folder, write(tmp_path / "b" / EVIL.replace("/", "∕"))]):
        text = render([read_run(each) for each in folders], [ledger] * len(folders))
        found = Parsed(text)
        assert not {"script", "img"} & set(found.tags)
        assert "<script" not in text.lower()
        assert found.text.count("alert('1')") >= 6


def test_two_runs_stand_side_by_side_with_their_own_names(tmp_path: Path) -> None:
    one, other = federation(tmp_path / "a" / "demo", run(6)), write(tmp_path / "b" / "demo")
    found = page(one, other)
    assert "a/demo and b/demo" in found.text
    assert "6 rounds" in found.text
    assert "40 steps" in found.text
    assert "round or step" in found.text
    assert "Entropy" in found.text


def test_training_alone_promises_nothing(tmp_path: Path) -> None:
    found = page(write(tmp_path / "alone"))
    promised = found.text.partition("What is guaranteed")[2].partition("Curves")[0]
    assert "Nothing." in promised
    assert "as private as the prompts" in promised
    assert "Too hot. Cool it." in found.text
    assert "Clients" not in found.tags


def test_a_run_without_privacy_says_what_that_means(tmp_path: Path) -> None:
    folder = federation(tmp_path / "open", [replace(row, epsilon=None) for row in run(3)])
    writer = RunWriter(folder)
    writer.summary(replace(SUMMARY, privacy=[]))
    text = page(folder).text
    assert "Single prompts are not hidden: the run has no differential privacy." in text
    assert "it is hidden whether" not in text


def test_an_unfinished_run_takes_its_guarantees_from_the_ledger(tmp_path: Path) -> None:
    found = page(federation(tmp_path / "half", run(2), finished=False), ledger=LEDGER)
    assert "not finished" in found.text
    assert "epsilon 1.50, delta 1e-05" in found.text


def test_settings_of_another_version_are_left_out(tmp_path: Path) -> None:
    folder = federation(tmp_path / "old", run(2))
    replace_file(folder / "settings.json", b'{"command": "simulate", "gone": 1}')
    assert "They were not noted, or by another version" in page(folder).text


@pytest.mark.slow
def test_of_many_groups_the_lowest_have_charts_and_all_are_in_the_table(tmp_path: Path) -> None:
    by = {f"group {n}": {"sampled": n / 20, "greedy": 0.5} for n in range(20)}
    text = page(federation(tmp_path / "run", [replace(row, held_out_by=by) for row in run(2)])).text
    assert all(f"Held-out, group {n}" in text for n in range(20))
    assert [n for n in range(20) if f"Held-out: group {n} " in text] == list(range(6))


@pytest.mark.parametrize("count", [1, 100])
def test_any_length_of_run_has_a_page(tmp_path: Path, count: int) -> None:
    found = page(federation(tmp_path / "run", [round_row(n) for n in range(1, count + 1)]))
    assert f"{count} rounds" in found.text


@pytest.mark.slow
def test_the_command_writes_pages_that_only_their_owner_reads(tmp_path: Path) -> None:
    one, other = federation(tmp_path / "one", run(3)), write(tmp_path / "two")
    for folders, name in (([one], "report.html"), ([one, other], "comparison.html")):
        result = CliRunner().invoke(app, ["report", *map(str, folders)])
        assert result.exit_code == 0, result.output
        assert "".join(result.output.split()).endswith(f"Page:{one}/{name}".replace(" ", ""))
        assert stat.S_IMODE((one / name).stat().st_mode) == 0o600
        assert re.search(r"<h1>\s*one", (one / name).read_text())


def test_a_band_is_the_spread_of_neighbouring_rounds() -> None:
    mean, spread = banded(Series([1, 2, 3, 4, 5], [0.0, 1.0, 0.0, 1.0, 0.0]))
    assert mean.values[2] == pytest.approx(2 / 3)
    assert spread[2] == pytest.approx((2 / 9) ** 0.5)
    assert banded(Series([1, 2], [0.0, 1.0])) == (Series([1, 2], [0.0, 1.0]), [])
