"""Curation of a site's file, from its rules to the page."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from fedgrpo.data.curation.curate import Curated, curate
from fedgrpo.data.curation.manifest import COMMITMENT, Manifest, check_manifest
from fedgrpo.data.curation.rules import Rules
from fedgrpo.data.sources import Source
from fedgrpo.ground.errors import SettingsError
from fedgrpo.ground.files import file_hash
from fedgrpo.settings import DataSettings
from fedgrpo.standalone.chosen import Chosen
from fedgrpo.standalone.curation.difficulty import pass_rates
from fedgrpo.standalone.curation.page import write_page


def curate_file(
    prompts: Path, rules: Path | None, out: Path | None, by: Path | None, columns: str
) -> Curated:
    """Curate a file of this machine.

    Parameters
    ----------
    prompts, rules:
        The files.
    out:
        Folder to write to. None: beside the prompts.
    by:
        Run or scenario whose policy says how hard a prompt is.
    columns:
        What columns are called in the file.

    Raises
    ------
    FedGRPOError
        Of the kind that fits, before anything is written where that can be known.
    """
    if rules is None:
        raise SettingsError("no rules are named", cure="add --rules rules.toml")
    read = Rules.read(rules)
    if bool(read.samples) != bool(by):
        raise SettingsError(
            f"samples = {read.samples} in {rules}, and {'a' if by else 'no'} policy is named",
            cure="set samples in the rules and name the policy with --by, or neither",
        )
    source = Source.of(DataSettings().with_columns(columns), str(prompts))
    folder = out or prompts.with_name(f"{prompts.name.partition('.')[0]}-curated")
    rates = partial(pass_rates, by) if by else None
    made = curate(source, read, folder, rates, _policy(by))
    write_page(made)
    return made


def _policy(by: Path | None) -> str:
    """What the manifest says of who was asked."""
    if by is None:
        return ""
    return file_hash(Chosen.of(by, best=False).weights) if by.is_dir() else "base"


def checked(prompts: Path) -> tuple[Manifest, str]:
    """The manifest beside a file that fits it, and the commitment to it; raises DataError if there
    is none.
    """
    manifest = check_manifest(prompts)
    return manifest, (prompts.parent / COMMITMENT).read_text("utf-8").strip()
