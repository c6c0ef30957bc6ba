"""Process: the operator's status page and metrics. It holds neither keys nor the server's secret
longer than a look takes, and what it is asked changes nothing.
"""

from __future__ import annotations

import socket
from functools import lru_cache
from io import BytesIO
from pathlib import Path

from fedgrpo.federation.deployment.children import told
from fedgrpo.federation.deployment.operator.runs.watch.looking import look
from fedgrpo.federation.deployment.operator.runs.watch.overview import Overview
from fedgrpo.federation.deployment.operator.runs.watch.shown import KINDS, page, samples
from fedgrpo.federation.deployment.operator.wish import Wish
from fedgrpo.report.reader import read_rows, read_summary
from fedgrpo.report.watch.app import Watched, application
from fedgrpo.report.watch.serving import LOOKED_AT, server


def main() -> None:
    """Serve at the socket that this process inherited."""
    said = told()
    watched = operators(Path(said["folder"]))
    app = application(watched, said["password"], frozenset(said["hosts"]))
    tls = (Path(said["tls"][0]), Path(said["tls"][1])) if said["tls"] else None
    server(app, tls, **LOOKED_AT).run([socket.socket(fileno=said["socket"])])


def operators(folder: Path) -> Watched[Overview]:
    """What an operator looks at."""
    return Watched(
        look=lambda: look(folder),
        page=page,
        as_json=Overview.to_json,
        samples=samples,
        kinds=KINDS,
        picture=lambda: _picture(folder),
    )


def _picture(folder: Path) -> bytes | None:
    """The run's picture, drawn again when another round is over."""
    wish = Wish.read(folder)
    directory = Path(wish.directory) if wish else None
    rows = len(read_rows(directory)) if directory else 0
    return _drawn(directory, rows) if directory and rows else None


@lru_cache(maxsize=1)
def _drawn(directory: Path, _rows: int) -> bytes:
    from fedgrpo.report.plots.picture import draw  # Slow to load, and not always wanted.

    drawn = BytesIO()
    draw(read_rows(directory), read_summary(directory)).savefig(drawn, format="png")
    return drawn.getvalue()


if __name__ == "__main__":
    main()
