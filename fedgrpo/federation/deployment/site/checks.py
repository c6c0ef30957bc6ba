"""What must be right at a site before its node starts, so that no order has to find it out.

Adversary: a server. Were an order refused because of a prompt, the refusal would tell of it; so
what is wrong with prompts is said here, in front of the people whose they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flwr.clientapp import ClientApp

from fedgrpo.data.files.row_limits import OTHER_BYTES
from fedgrpo.data.sources import Source, columns_of, raw_rows
from fedgrpo.federation.deployment.executor.apps import load_app
from fedgrpo.ground.errors import DataError, RunError
from fedgrpo.settings import Scalar, Settings
from fedgrpo.settings.sections.table import read_table, to_text
from fedgrpo.site import Policy, Site
from fedgrpo.site.checked import check_reward_files, check_unchanged, files_stamp
from fedgrpo.site.places import check_model_places
from fedgrpo.site.site import find_policy


def check_site(config: Mapping[str, Scalar], *, no_policy: bool, own_app: bool) -> None:
    """Hold a node's configuration against what is there.

    Parameters
    ----------
    config:
        The node's own.
    no_policy:
        Whether it may start without a policy. It answers nothing then.
    own_app:
        Whether the site runs an app of its own, which may find its prompts elsewhere.

    Raises
    ------
    PolicyError, DataError, ModelError, RewardError, RunError
        With a cure.
    """
    policy = _policy(config, no_policy=no_policy)
    check_model_places(config)
    check_reward_files(config, policy)
    if "prompts" in config and "columns" in config:
        _check_columns(str(config["prompts"]), str(config["columns"]))
    if "prompts" not in config:
        if not own_app:
            raise DataError("this node names no prompts", cure="name them: --prompts FILE")
    elif policy:
        check_unchanged(config, Settings(), policy)
    else:
        files_stamp(str(config["prompts"]))


def check_app(reference: str) -> None:
    """Load the app that is to run; raises RunError if it cannot be loaded."""
    load_app(reference, ClientApp)


def _check_columns(prompts: str, columns: str) -> None:
    """Refuse a file whose first row lacks a column that the site names. Folders, of which a run
    names the split, are left to ``fedgrpo policy check``.
    """
    files_stamp(prompts)
    if not Path(prompts).expanduser().is_file():
        return
    raw: Mapping[Any, Any] = next(
        (raw for _, raw in raw_rows(Source(prompts), OTHER_BYTES) if isinstance(raw, Mapping)), {}
    )
    lacking = [theirs for theirs in read_table(str(to_text(columns))).values() if theirs not in raw]
    if lacking:
        raise DataError(
            f"the prompts have no column {lacking[0]!r}, which the site's columns name; the first "
            f"row: {columns_of(raw)}",
            cure="correct columns in site.toml",
        )


def _policy(config: Mapping[str, Scalar], *, no_policy: bool) -> Policy | None:
    """The site's policy, with an account that can be read."""
    path = find_policy(config)
    if path is None:
        if no_policy:
            return None
        raise RunError(
            "this site has no policy, so its node would answer nothing",
            cure="put a policy.toml beside the prompts, or name it with --policy: copy "
            "clients/policy.toml, then 'fedgrpo policy explain policy.toml'",
        )
    site = Site.open(path)
    site.spending.read()
    return site.policy
