"""The commands of the command line, one module each. :mod:`fedgrpo.cli.app` puts them together.

A command is a function with Typer's annotations; a group is a ``typer.Typer`` named ``group``. Each
does its work in :func:`~fedgrpo.cli.outcome.explained` and imports heavy rooms only then, so
that ``--help`` stays quick.
"""

try:
    import fcntl as _  # noqa: F401 - run directories are locked through it
except ImportError:
    raise SystemExit(
        "fedgrpo needs Linux or macOS: on Windows, run it in WSL (https://aka.ms/wsl)"
    ) from None
