"""The page about monitoring: its tables are the code's, and its alert rules can be evaluated."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
import yaml

from fedgrpo.federation.deployment.operator.runs.watch import shown as operators
from fedgrpo.federation.deployment.site.watch import shown as sites
from tests.monitoring_page import PAGE, page

SCRAPE, RULES = (block.partition("```")[0] for block in PAGE.read_text().split("```yaml\n")[1:])
KINDS = (*operators.KINDS, *sites.KINDS)


def rules():
    (group,) = yaml.safe_load(RULES)["groups"]
    return group["rules"]


def test_every_metric_is_on_the_page_and_no_other():
    assert PAGE.read_text() == page(), "python -m tests.monitoring_page"


def test_there_are_eight_rules_of_metrics_and_labels_that_there_are():
    found = rules()
    assert len(found) == len({rule["alert"] for rule in found}) == 8
    labels = {kind.name: set(kind.labels) for kind in KINDS}
    for rule in found:
        named = re.findall(r"fedgrpo_\w+", rule["expr"])
        assert named, rule
        assert set(named) <= set(labels)
        told = set().union(*(labels[name] for name in named))
        asked = re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])
        by = re.findall(r"on\((\w+)\)", rule["expr"])
        selected = re.findall(r"\{(\w+)[=!]", rule["expr"].replace("up{job", ""))
        assert {*asked, *by, *selected} <= told, rule


def test_the_password_is_asked_for_as_prometheus_gives_it():
    (job,) = yaml.safe_load(SCRAPE)["scrape_configs"]
    assert job["authorization"] == {"credentials_file": "/etc/prometheus/fedgrpo.password"}


def test_prometheus_own_program_takes_the_rules(tmp_path):
    if not (promtool := shutil.which("promtool")):
        pytest.skip("needs the program promtool")
    (tmp_path / "rules.yaml").write_text(RULES)
    done = subprocess.run(
        [promtool, "check", "rules", str(tmp_path / "rules.yaml")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 rules found" in done.stdout
