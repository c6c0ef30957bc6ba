"""Units are ones that systemd takes, whatever the folder is called."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from fedgrpo.federation.deployment.units import Service, unit

VERIFY = shutil.which("systemd-analyze")


@pytest.mark.skipif(VERIFY is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("name", ["federation", 'a "b" 100% $HOME'])
def test_systemd_takes_the_unit_and_finds_it_narrow(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    file = tmp_path / "fedgrpo-node.service"
    words = ["node", str(folder / "site.toml")]
    file.write_text(unit(Service("fedgrpo site a", words, Path("/"), [folder]), file))
    done = subprocess.run(
        [VERIFY, "verify", file], capture_output=True, text=True, check=False, timeout=60
    )
    assert file.name not in done.stderr, done.stderr
    said = subprocess.run(
        [VERIFY, "security", "--offline=yes", "--no-pager", file],
        capture_output=True, text=True, check=False, timeout=60,
    ).stdout  # fmt: skip
    exposure = float(said.rpartition("fedgrpo-node.service: ")[2].split()[0])
    assert exposure <= 3.4, said
