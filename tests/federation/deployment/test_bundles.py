"""What a site reads of an operator's bundle: settings alone, of a bounded size."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from types import SimpleNamespace

import pytest

from fedgrpo.federation.deployment.flower_internals.servers import MOST_SETTINGS, settings_of
from fedgrpo.federation.wire.app_bundle import deployed_app

RUN = SimpleNamespace(override_config={"rounds": 3})
PLAIN = b"""[project]
name = "x"
version = "1.0.0"
[tool.flwr.app]
publisher = "x"
[tool.flwr.app.components]
serverapp = "a:a"
clientapp = "a:a"
[tool.flwr.app.config]
rounds = 1
model.name = "tiny"
"""
BOMB = 64 << 20


def packed(content, kind=zipfile.ZIP_DEFLATED, name="pyproject.toml"):
    with zipfile.ZipFile(whole := io.BytesIO(), "w", kind) as bundle:
        bundle.writestr(name, content)
    return whole.getvalue()


def lying(bundle):
    """Say that what is packed is small, in both places."""
    for signature, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = bundle.index(signature) + at
        bundle = bundle[:start] + struct.pack("<I", 100) + bundle[start + 4 :]
    return bundle


def test_the_defaults_of_a_bundle_stand_under_what_was_submitted():
    assert settings_of(packed(PLAIN), RUN) == {"rounds": 3, "model.name": "tiny"}


def test_the_bundle_that_an_operator_submits_is_small_enough(tmp_path):
    content = (deployed_app(tmp_path / "app") / "pyproject.toml").read_bytes()
    assert len(content) < MOST_SETTINGS / 4
    assert "model.name" in settings_of(packed(content), RUN)


@pytest.mark.slow
@pytest.mark.parametrize(
    "bundle",
    [
        lambda: packed(bytes(BOMB)),
        lambda: lying(packed(bytes(BOMB))),
        lambda: packed(bytes(BOMB), zipfile.ZIP_BZIP2),
        lambda: packed(bytes(BOMB), zipfile.ZIP_LZMA),
        lambda: packed(PLAIN + b"#" * MOST_SETTINGS),
        lambda: packed(b"x = " + b"[" * 100_000),
        lambda: packed(b"\xff"),
        lambda: packed(PLAIN, name="other"),
        lambda: packed(PLAIN)[:-30],
        lambda: b"",
    ],
    ids=["bomb", "lying", "bzip2", "lzma", "large", "deep", "binary", "none", "cut", "empty"],
)
def test_a_bundle_that_cannot_be_read_ends_no_node_and_fills_no_memory(bundle):
    content = bundle()
    tracemalloc.start()
    try:
        assert settings_of(content, RUN) == RUN.override_config
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20
