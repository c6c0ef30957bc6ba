"""A data holder's ClientApp. Everything that sees private prompts is in the installed fedgrpo."""

from fedgrpo.federation import make_client_app

app = make_client_app()
