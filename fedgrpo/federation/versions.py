"""What both sides must agree on before they talk."""

from importlib.metadata import version

PROTOCOL = 1
"""Version of the messages. Raised when their meaning changes."""

VERSION = version("fedgrpo")
"""Version of the installed package: server and nodes must run the same."""
