"""What must be so of a deployment that runs: its logs, and its pages behind their passwords."""

from __future__ import annotations

import re

import httpx

from fedgrpo.report.watch.place import PASSWORD

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (info|warning|error) \S.*")
CHARGED = re.compile(r"run (\d+), round (\d+): a release of unit prompt is asked for and charged")


def check_log(file):
    """Every line is one of ours; returns them."""
    lines = file.read_text().splitlines()
    assert lines
    assert not [line for line in lines if not LINE.fullmatch(line)]
    assert not [line for line in lines if "Warning" in line or "%|" in line or "\x1b" in line]
    return lines


def charges(lines):
    """Rounds of which a node has said what they cost, each once."""
    return [(int(found[2])) for line in lines if (found := CHARGED.search(line))]


def page_of(folder, port):
    """The page and the metrics of a folder, as its owner sees them."""
    word = (folder / PASSWORD).read_text().strip()
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client:
        assert client.get("/").status_code == 401
        client.auth = ("me", word)
        return client.get("/").text, client.get("/metrics").text
