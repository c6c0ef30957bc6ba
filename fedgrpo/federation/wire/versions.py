"""What both sides must agree on before they talk."""

import hashlib
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

PROTOCOL = 7
"""Version of the messages. Raised when their meaning changes."""

VERSION = version("fedgrpo")
"""Version of the installed package: server and nodes must run the same."""
TOLD_VERSION = "fedgrpo-version"
"""Header by which a node says what it runs, whenever it greets the server."""


@lru_cache(maxsize=1)
def code_hash() -> str:
    """SHA-256 (hex) of the package's source files: a run goes on with the code it began with."""
    digest, package = hashlib.sha256(), Path(__file__).parents[2]
    for file in sorted(package.rglob("*.py")):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(package).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()
