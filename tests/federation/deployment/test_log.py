"""One format, one clock, files that are rotated; and a log that fails nothing."""

from __future__ import annotations

import ast
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fedgrpo.federation.deployment.doctor.troubles import TROUBLES
from fedgrpo.federation.deployment.log.codes import ANYWHERE, AT_A_SITE, LOGGED, ON_THE_SERVER
from fedgrpo.federation.deployment.log.lines import LONGEST, JsonLines, Lines
from fedgrpo.federation.deployment.log.rotated import FILES, RotatedFile
from fedgrpo.site.refusals import Refusal

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "fedgrpo"
PATH = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (info|warning|error) \S.*")


def record(message, *args, **extra):
    made = logging.LogRecord("fedgrpo.x", logging.WARNING, "", 1, message, args, None)
    made.__dict__.update(extra)
    made.created = 0.0
    return made


def test_a_line_has_its_time_in_utc_its_code_and_its_cure(monkeypatch):
    monkeypatch.setenv("TZ", "America/New_York")
    said = Lines().format(record("the process died (code %d)", -9, code="model-died"))
    cure = LOGGED["model-died"].cure
    assert said == (
        f"1970-01-01T00:00:00Z warning the process died (code -9) [model-died]; cure: {cure}"
    )
    own = Lines().format(record("red: x", code="clock-fast", cure="set it"))
    assert own.endswith("red: x [clock-fast]; cure: set it")
    assert Lines().format(record("nothing to do")) == "1970-01-01T00:00:00Z warning nothing to do"


def test_what_others_say_is_no_line_of_its_own_and_moves_no_cursor():
    forged = record("refused:\n  cure: x\r\n1970-01-01T00:00:00Z info all is well\x1b[2J\u2028y")
    assert Lines().format(forged) == (
        "1970-01-01T00:00:00Z warning refused:; cure: x; 1970-01-01T00:00:00Z info all is "
        "well?[2J; y"
    )


def test_a_cure_that_a_server_has_said_is_no_line_of_its_own():
    forged = record("refused", cure="wait\n1970-01-01T00:00:00Z info all is well\x1b[2J")
    assert Lines().format(forged) == (
        "1970-01-01T00:00:00Z warning refused; cure: wait; 1970-01-01T00:00:00Z info all is "
        "well?[2J"
    )


def test_a_line_has_an_end_whatever_is_quoted():
    try:
        raise ValueError("x" * (3 * LONGEST))
    except ValueError:
        long = record("y" * (3 * LONGEST), cure="z" * (3 * LONGEST))
        long.exc_info = sys.exc_info()
    assert len(Lines().format(long)) < 4 * LONGEST
    assert len(JsonLines().format(long)) < 4 * LONGEST


def test_a_tracebacks_lines_begin_like_none_of_the_log():
    forged = record("failed")
    try:
        raise ValueError("x\n1970-01-01T00:00:00Z info all is well\x1b[1A\x1b[2K\x9b1A")
    except ValueError:
        forged.exc_info = sys.exc_info()
    first, *traced = Lines().format(forged).splitlines()
    assert LINE.fullmatch(first)
    assert traced
    assert all(line.startswith("    ") and line.isprintable() for line in traced)
    assert "all is well" in json.loads(JsonLines().format(forged))["traceback"]


def test_for_programs_a_line_is_an_object():
    said = json.loads(JsonLines().format(record("x\ny", code="hours", figures={"round": 3})))
    assert said == {
        "time": "1970-01-01T00:00:00Z", "level": "warning", "logger": "fedgrpo.x",
        "message": "x\ny", "code": "hours", "figures": {"round": 3},
    }  # fmt: skip
    assert "\n" not in JsonLines().format(record("x\ny"))


def test_a_file_is_put_aside_when_it_is_long_and_ten_are_kept(tmp_path):
    """Two handlers take turns, as two processes do: no line is lost or torn."""
    file = tmp_path / "logs" / "node.log"
    writers = [RotatedFile(file, most_bytes=200) for _ in range(2)]
    for number in range(400):
        writers[number % 2].handle(record(f"line {number:04}"))
    kept = sorted(file.parent.glob("node.log*"), key=lambda path: path.suffix)
    assert len(kept) == FILES
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in kept)
    assert file.parent.stat().st_mode & 0o077 == 0
    numbers = [int(found) for path in kept for found in re.findall(r"line (\d+)", path.read_text())]
    newest = sorted(numbers)
    assert newest == list(range(newest[0], 400)), "the oldest alone are gone"
    assert max(path.stat().st_size for path in kept) < 300


def test_a_file_that_cannot_be_written_fails_nothing(tmp_path):
    for place in (Path("/dev/full"), tmp_path, Path("/proc/none/log")):
        RotatedFile(place).handle(record("x"))
    broken = RotatedFile(tmp_path / "log")
    broken.setFormatter(logging.Formatter("%(nothing)s"))
    broken.handle(record("x"))


def in_a_process(code, **environment):
    """Run code after the log was set up; returns what it said."""
    begin = "from fedgrpo.federation.deployment.log import log_here, log_to_stderr\n"
    done = subprocess.run(
        [sys.executable, "-c", begin + code],
        env=os.environ | {"PYTHONPATH": PATH} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


FOREIGN = """
import logging, warnings
log_to_stderr()
import flwr.supercore.logger, uvicorn
from flwr.supercore.logger import log
log(logging.DEBUG, "Will push output")
log(logging.INFO, "")
log(logging.INFO, "%d", "not a number")
log(logging.INFO, "Received: train")
uvicorn.Config(None, log_level="warning")
logging.getLogger("uvicorn.error").error("port taken")
logging.getLogger("another").warning("from elsewhere")
warnings.warn("is_gradient_checkpointing", FutureWarning)
logging.getLogger("fedgrpo.x").info("ours")
"""


@pytest.mark.slow
def test_flowers_lines_have_the_same_format_and_nobodys_warnings_are_there(tmp_path):
    file = tmp_path / "logs" / "node.log"
    said = in_a_process(FOREIGN, FEDGRPO_LOG_FILE=str(file)).splitlines()
    assert all(LINE.fullmatch(line) for line in said), said
    told = [line.partition("Z ")[2] for line in said]
    assert told == [
        "info Received: train", "error port taken", "warning from elsewhere", "info ours",
    ]  # fmt: skip
    assert file.read_text().splitlines() == said
    for line in in_a_process(FOREIGN, FEDGRPO_LOG_FORMAT="json").splitlines():
        assert json.loads(line)["time"].endswith("Z")


def test_what_cannot_be_printed_or_logged_fails_nothing():
    code = """
import logging, os, sys
os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
os.dup2(1, 2)
log_here()
for _ in range(10000):
    logging.getLogger("fedgrpo.x").error("lost", exc_info=ValueError("x"))
    print("lost"); print("lost", file=sys.stderr, flush=True)
    sys.stdout.flush()
os._exit(0)
"""
    assert in_a_process(code) == ""


def test_a_child_says_it_in_the_way_of_its_parent(tmp_path):
    code = f"""
from pathlib import Path
import os
log_here(Path({str(tmp_path / "log")!r}), as_json=True)
assert os.environ["FEDGRPO_LOG_FORMAT"] == "json"
log_here()
assert os.environ["FEDGRPO_LOG_FILE"].endswith("log")
"""
    in_a_process(code)


def calls():
    """Every line that is a warning or worse: its place and its keywords."""
    for file in sorted(PACKAGE.rglob("*.py")):
        if "simulation" in file.parts:
            continue
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            called = node.func if isinstance(node, ast.Call) else None
            if (
                isinstance(called, ast.Attribute)
                and isinstance(called.value, ast.Name)
                and called.value.id == "LOG"
                and called.attr in ("warning", "error", "exception")
            ):
                yield f"{file.relative_to(ROOT)}:{node.lineno}", {k.arg for k in node.keywords}


def test_every_line_that_somebody_should_act_on_has_a_code():
    found = dict(calls())
    assert len(found) > 15
    assert not [place for place, keywords in found.items() if "extra" not in keywords]


def test_every_code_that_is_said_is_in_the_table_and_every_one_there_is_said():
    code = "\n".join(file.read_text() for file in sorted(PACKAGE.rglob("*.py")))
    table = PACKAGE / "federation" / "deployment" / "log" / "codes.py"
    said = set(re.findall(r'"code": "([a-z-]+)"', code))
    assert said <= set(LOGGED) | set(TROUBLES) | {str(each) for each in Refusal}
    elsewhere = code.replace(table.read_text(), "")
    assert not [each for each in LOGGED if f'"{each}"' not in elsewhere]


def test_a_code_means_one_thing():
    assert len(LOGGED) == len(ON_THE_SERVER) + len(AT_A_SITE) + len(ANYWHERE)
    assert not set(LOGGED) & set(TROUBLES)
    assert not set(LOGGED) & {str(each) for each in Refusal}
    assert all(each.about and each.cure for each in LOGGED.values())
