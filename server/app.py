"""The server's ServerApp."""

from fedgrpo.federation import make_server_app

app = make_server_app()
