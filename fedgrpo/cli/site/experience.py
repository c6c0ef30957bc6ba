"""``fedgrpo experience``: what the model answered here, kept by the site for itself."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedgrpo.cli.outcome import explained

if TYPE_CHECKING:
    from fedgrpo.site.experience.store import Store

group = typer.Typer(
    help="A site's own store of completions and what they were worth. Nothing of it is sent.",
    no_args_is_help=True,
)

Folder = Annotated[Path, typer.Option("--store", metavar="DIR", help="Folder of the store.")]
DEFAULT = Path("experience")
DAY_S = 86_400


def _store(folder: Path) -> Store:
    from fedgrpo.ground.errors import RunError
    from fedgrpo.site.experience.store import Store

    if not folder.is_dir():
        raise RunError(f"{folder} is no store", cure="name it with --store DIR")
    return Store(folder)


@group.command("collect")
def collect(
    run_dir: Annotated[
        Path, typer.Argument(metavar="RUN", help="Run whose adapter answers.", show_default=False)
    ],
    prompts: Annotated[str, typer.Option(metavar="FILE", help="The site's prompts.")],
    folder: Folder = DEFAULT,
) -> None:
    """Let a run's adapter answer the site's prompts, and keep what comes and what it is worth."""
    with explained():
        from fedgrpo.site.experience.store import Store
        from fedgrpo.standalone.experience import experienced

        found = list(experienced(run_dir, prompts))
        Store(folder).append(found)
        typer.echo(f"{len(found)} experiences added to {folder}")


@group.command("list")
def list_(folder: Folder = DEFAULT) -> None:
    """List entries whose contents are there: number, prompt, reward, adapter, round and time."""
    with explained():
        for number, each in _store(folder).read():
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(each.at))
            typer.echo(
                f"{number:8} {each.prompt[:12]} {each.reward:8.3f} {each.adapter[:12]} "
                f"{each.run} {each.round} {when}"
            )


@group.command("show")
def show(number: int, folder: Folder = DEFAULT) -> None:
    """Show one entry, completion included."""
    with explained():
        from fedgrpo.ground.errors import RunError

        found = dict(_store(folder).read()).get(number)
        if found is None:
            raise RunError(f"{folder} has no content of entry {number}", cure="see the list")
        typer.echo(json.dumps(vars(found), indent=2, ensure_ascii=True))


@group.command("verify")
def verify(
    folder: Folder = DEFAULT,
    commitment: Annotated[
        str, typer.Option(metavar="HEX", help="Also that this was made of the store.")
    ] = "",
) -> None:
    """Recompute the chain, and open every content and promise. Exit code: 0 sound, 2 not."""
    with explained():
        found = _store(folder).verify(commitment)
        typer.echo(
            f"sound: {found.entries} entries, of {found.deleted} the contents are deleted; "
            f"{found.promises} promises"
        )


@group.command("commit")
def commit(folder: Folder = DEFAULT) -> None:
    """Print a commitment to the store as it stands, which says nothing of it."""
    with explained():
        typer.echo(_store(folder).promise())


@group.command("export")
def export(file: Path, folder: Folder = DEFAULT) -> None:
    """Write all contents as JSON lines, for the owner alone."""
    with explained():
        from fedgrpo.ground.files import replace_file

        tree = [{"number": n, **vars(each)} for n, each in _store(folder).read()]
        text = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in tree)
        replace_file(file, text.encode(), mode=0o600)
        typer.echo(f"{len(tree)} experiences written to {file}, not encrypted")


@group.command("forget")
def forget(
    folder: Folder = DEFAULT,
    prompt: Annotated[
        str, typer.Option(metavar="HEX", help="All of this prompt, by the id that `show` has.")
    ] = "",
    older: Annotated[
        float | None, typer.Option(metavar="DAYS", help="All that is older.", min=0)
    ] = None,
    most: Annotated[
        int | None, typer.Option(metavar="N", help="All but the newest N of each prompt.", min=0)
    ] = None,
) -> None:
    """Delete contents with their salts. The links stay, so the store still verifies."""
    with explained():
        from fedgrpo.ground.errors import SettingsError

        if not prompt and older is None and most is None:
            raise SettingsError("nothing is named", cure="add --prompt, --older or --most")
        before = None if older is None else time.time() - older * DAY_S
        gone = _store(folder).forget(prompt=prompt, before=before, most=most)
        typer.echo(f"{gone} contents deleted")
