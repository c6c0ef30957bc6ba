"""Process: a site's status page and metrics, for its own people. Being asked changes nothing."""

from __future__ import annotations

import socket

from fedgrpo.federation.deployment.children import told
from fedgrpo.federation.deployment.site.site_file import SiteFile
from fedgrpo.federation.deployment.site.watch.overview import SiteOverview, look
from fedgrpo.federation.deployment.site.watch.shown import KINDS, page, samples
from fedgrpo.report.watch.app import Watched, application
from fedgrpo.report.watch.serving import LOOKED_AT, server


def main() -> None:
    """Serve at the socket that this process inherited."""
    said = told()
    watched = sites(SiteFile(**said["site"]))
    app = application(watched, said["password"], frozenset())
    server(app, None, **LOOKED_AT).run([socket.socket(fileno=said["socket"])])


def sites(site: SiteFile) -> Watched[SiteOverview]:
    """What a site's people look at."""
    return Watched(
        look=lambda: look(site),
        page=page,
        as_json=SiteOverview.to_json,
        samples=samples,
        kinds=KINDS,
    )


if __name__ == "__main__":
    main()
