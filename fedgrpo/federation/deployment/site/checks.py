"""What must be right at a site before its node starts, so that no order has to find it out.

Adversary: a server. Were an order refused because of a prompt, the refusal would tell of it; so
what is wrong with prompts is said here, in front of the people whose they are.
"""

from __future__ import annotations

from collections.abc import Mapping

from fedgrpo.ground.errors import DataError, PolicyError, RunError
from fedgrpo.settings import Scalar, Settings
from fedgrpo.site import Policy, Site
from fedgrpo.site.checked import files_stamp, read_checked
from fedgrpo.site.node_folder import node_folder
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
    PolicyError, DataError, RunError
        With a cure.
    """
    policy = _policy(config, no_policy=no_policy)
    if "prompts" not in config:
        if not own_app:
            raise DataError("this node names no prompts", cure="name them: --prompts FILE")
    elif policy:
        _check_prompts(config, policy)
    else:
        files_stamp(str(config["prompts"]))


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


def _check_prompts(config: Mapping[str, Scalar], policy: Policy) -> None:
    prompts, folder = str(config["prompts"]), node_folder(config, Settings())
    files = files_stamp(prompts)
    found = read_checked(folder) if folder else None
    if found is None or found.files != files:
        what = "were never checked" if found is None else "have changed since they were checked"
        where = f" --state {folder}" if "state" in config else ""
        raise DataError(
            f"the prompts {prompts} {what}",
            cure=f"fedgrpo policy check {find_policy(config)} SCENARIO --prompts {prompts}{where}",
        )
    most = max(found.units.values(), default=0)
    if most > policy.prompts_declared > 0:
        raise PolicyError(
            f"there are {most} units, more than prompts_declared = {policy.prompts_declared}",
            code="declared",
            cure=f"raise it, and check {prompts} again",
        )
