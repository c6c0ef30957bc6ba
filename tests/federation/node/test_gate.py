"""A site's policy holds in a federation: refused before prompts are opened, and the run goes on."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message

from fedgrpo.data.ownership import node_prompts
from fedgrpo.federation import FedGRPO, LocalGrid, make_client_app
from fedgrpo.federation.wire.codec import Header, encode
from fedgrpo.federation.wire.messages import (
    TRAIN,
    Refused,
    TrainOrder,
    read_refusal,
    write_adapter,
)
from fedgrpo.federation.wire.plans import plan_hash, release_plan
from fedgrpo.ground.errors import ProtocolError
from fedgrpo.model.adapter import AdapterState
from fedgrpo.settings import Scalar, Settings
from fedgrpo.site import Policy, Refusal, SpendingFile, rounds_left
from tests.federation.federation import (
    DIMENSION,
    FakeClient,
    make_adapter,
    make_settings,
    small_delta,
    vector_of,
)
from tests.federation.sites import PUBLIC, FakeClock, code_of, make_site

OPEN = '\nmodels = ["*"]\nrewards = ["*"]\n[client]\nlargest_epsilon = 1e6\n'
CLIENT: dict[str, Scalar] = {
    "privacy__unit": "client",
    "privacy__max_epsilon": 1e6,
    "federation__round_timeout_s": 600.0,
}


class Sites:
    """Twelve nodes, some of them with a policy, in one process."""

    def __init__(self, folder: Path, settings: Settings, policies: Mapping[int, str]) -> None:
        self.settings, self.folder = settings, folder
        self.releases: dict[tuple[int, int], Any] = {}
        for number, text in policies.items():
            (folder / f"{number}").mkdir()
            (folder / f"{number}" / "policy.toml").write_text(text)
        self.policies = policies
        self.grid = self.connect(run_id=1)

    def connect(self, run_id: int) -> LocalGrid:
        return LocalGrid(
            make_client_app(self._client),
            12,
            node_config=self._config,
            run_config=self.settings.to_run_config(),
            run_id=run_id,
        )

    def run(self) -> FedGRPO:
        strategy = FedGRPO(self.settings)
        strategy.start(self.grid, write_adapter(make_adapter()))
        return strategy

    def spent(self, number: int) -> int:
        return len(SpendingFile(self.folder / f"{number}" / "spent.jsonl").read().entries)

    def _config(self, number: int) -> dict[str, Scalar]:
        config: dict[str, Scalar] = {"partition-id": number, "num-partitions": 12}
        if number in self.policies:
            config["policy"] = str(self.folder / f"{number}" / "policy.toml")
        return config

    def _client(self, settings: Settings, node_config: Mapping[str, Scalar]) -> FakeClient:
        return FakeClient(int(node_config["partition-id"]), small_delta, self.releases)


def order(settings: Settings, run: int = 1, round: int = 1, norm: float = 1.0) -> TrainOrder:
    name = f"{run:032x}"
    return TrainOrder(Header(run, round), name, make_adapter(), norm, settings.fingerprint())


def ask(grid: LocalGrid, what: TrainOrder, node: int = 1001) -> Message:
    message = Message(encode(what.header, what), dst_node_id=node, message_type=TRAIN)
    (reply,) = grid.send_and_receive([message])
    return reply


def refusal(reply: Message) -> Refusal | None:
    return code_of(reply)


@pytest.mark.slow
def test_one_site_refuses_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = make_settings(rounds=3, **CLIENT)
    strict = "least_bucket = 9" + OPEN
    sites = Sites(tmp_path, settings, {4: strict, 5: OPEN})
    with caplog.at_level(logging.WARNING):
        strategy = sites.run()
    assert strategy.state is not None
    assert strategy.state.progress.round == 4
    assert strategy.state.progress.skipped == 0
    assert not [key for key in sites.releases if key[0] == 4]
    assert len([key for key in sites.releases if key[0] == 5]) == 3
    assert (sites.spent(4), sites.spent(5)) == (0, 3)
    told = [r.message for r in caplog.records if "nodes dropped" in r.message]
    assert len(told) == 3
    assert "1 of 12 nodes dropped: 1 x refused, bucket-size: raise" in told[0]
    assert np.isfinite(vector_of(strategy)).all()


@pytest.mark.slow
def test_a_budget_that_runs_out_in_the_middle_stops_the_site_and_not_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = make_settings(rounds=6, privacy__noise_multiplier=2.0, **CLIENT)
    limited = OPEN.replace("1e6", "5.0")
    policy = Policy.model_validate({"client": {"largest_epsilon": 5.0}})
    affordable = rounds_left(policy, [], settings)
    assert 0 < affordable < 6
    sites = Sites(tmp_path, settings, {2: limited})
    with caplog.at_level(logging.WARNING):
        strategy = sites.run()
    assert strategy.state is not None
    assert strategy.state.progress.skipped == 0
    assert sorted(r for n, r in sites.releases if n == 2) == list(range(1, affordable + 1))
    assert sites.spent(2) == affordable
    told = [r.message for r in caplog.records if "dropped: 1 x refused, epsilon" in r.message]
    assert len(told) == 6 - affordable


def test_a_new_run_id_begins_no_new_budget(tmp_path: Path) -> None:
    settings = make_settings(rounds=9, privacy__noise_multiplier=2.0, **CLIENT)
    sites = Sites(tmp_path, settings, {0: OPEN.replace("1e6", "5.0")})
    made = 0
    for run in range(1, 8):
        grid = sites.connect(run_id=run)
        made += refusal(ask(grid, order(settings, run=run))) is None
    assert 0 < made < 7
    assert sites.spent(0) == made
    assert refusal(ask(sites.connect(9), order(settings, run=9))) is Refusal.EPSILON


def test_a_site_that_lost_its_memory_charges_the_same_plan_once_and_any_other_anew(
    tmp_path: Path,
) -> None:
    """Its secret stays on its disk, and with it the release is the same."""
    directory = str(tmp_path / "run")
    settings = make_settings(rounds=9, privacy__adaptive=True, run__directory=directory, **CLIENT)
    sites = Sites(tmp_path, settings, {0: OPEN})
    asked = order(settings)
    for _ in range(2):
        assert refusal(ask(sites.connect(1), asked)) is None
        assert sites.spent(0) == 1
    assert refusal(ask(sites.connect(1), order(settings, norm=1.5))) is Refusal.OUT_OF_TURN
    assert refusal(ask(sites.connect(2), order(settings, run=2))) is None
    assert refusal(ask(sites.connect(2), order(settings, run=2, round=2, norm=1.5))) is None
    assert sites.spent(0) == 3


def test_everything_that_decides_a_release_is_in_the_hash_of_its_plan() -> None:
    settings, adapter = make_settings(rounds=9, **CLIENT), make_adapter()
    asked, plan = order(settings), release_plan(settings, DIMENSION, 1.0)
    adaptive = make_settings(rounds=9, privacy__adaptive=True, **CLIENT)
    other = AdapterState(np.ones(DIMENSION, np.float32), adapter.basis, adapter.layout)
    basis = AdapterState(adapter.vector, {}, adapter.layout)
    hashes = [
        plan_hash(settings, asked, plan, "file"),
        plan_hash(settings, replace(asked, run="cd" * 16), plan, "file"),
        plan_hash(settings, replace(asked, header=Header(1, 2)), plan, "file"),
        plan_hash(settings, replace(asked, adapter=other), plan, "file"),
        plan_hash(settings, replace(asked, adapter=basis), plan, "file"),
        plan_hash(settings, asked, plan, "another file"),
        plan_hash(adaptive, asked, plan, "file"),
        plan_hash(adaptive, asked, release_plan(adaptive, DIMENSION, 2.0), "file"),
    ]
    assert len(set(hashes)) == len(hashes)
    resumed = replace(asked, header=Header(2, 1))
    assert plan_hash(settings, resumed, plan, "file") == hashes[0], "Flower's run id may change"


PROMPTS = "prompts.jsonl"


def one_site(folder: Path, settings: Settings, policy: str) -> LocalGrid:
    """A deployed node that opens its prompts as one that trains in earnest does."""
    config = make_site(folder, PUBLIC + policy)
    return LocalGrid(
        make_client_app(opening, clock=FakeClock()),
        1,
        node_config=lambda _: config,
        run_config=settings.to_run_config(),
    )


def opening(settings: Settings, node_config: Mapping[str, Scalar]) -> FakeClient:
    """Make a client that has read the node's prompts."""
    assert node_prompts(settings, node_config)
    return FakeClient(0, small_delta, {})


OPENED: list[str] = []
"""Files that anything in this process has opened, while a test looks."""


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        OPENED.append(os.fsdecode(arguments[0]))


sys.addaudithook(_watch)


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        ("least_bucket = 4" + OPEN, Refusal.BUCKET_SIZE),
        ("rounds = 0" + OPEN, Refusal.ROUNDS),
        (OPEN.replace("1e6", "0.01"), Refusal.EPSILON),
        ("spent = 'missing/spent.jsonl'" + OPEN, Refusal.SPENT_FILE),
        ("no_such_key = 1", Refusal.POLICY_FILE),
        (OPEN, None),
    ],
)
def test_a_round_is_refused_before_the_prompts_are_opened(
    tmp_path: Path, policy: str, code: Refusal | None
) -> None:
    settings = make_settings(**CLIENT)
    grid = one_site(tmp_path, settings, policy)
    OPENED.clear()
    reply = ask(grid, order(settings))
    opened = str(tmp_path / PROMPTS) in OPENED
    assert any("policy.toml" in name for name in OPENED)
    assert opened is (code is None)
    assert refusal(reply) is code


@pytest.mark.parametrize("shown", ["buckets", "plain"])
def test_a_sites_policy_decides_what_the_server_may_be_shown(tmp_path: Path, shown: str) -> None:
    settings = make_settings(aggregation__protocol="plain", **CLIENT)
    grid = one_site(tmp_path, settings, f"protocols = ['{shown}']" + OPEN)
    reply = ask(grid, order(settings))
    assert refusal(reply) is (Refusal.PROTOCOL if shown == "buckets" else None)


MEMBERS = [f"{number:064x}{number + 64:064x}" for number in range(5)]


@pytest.mark.parametrize(
    ("named", "code"),
    [
        (MEMBERS[:4], None),
        (MEMBERS[1:], Refusal.COMMITTEE),
        ([], Refusal.COMMITTEE),
    ],
)
def test_a_site_deals_to_the_members_that_it_agreed_to_or_opens_no_prompt(
    tmp_path: Path, named: list[str], code: Refusal | None
) -> None:
    settings = make_settings(
        aggregation__protocol="committee",
        aggregation__committee=", ".join(named),
        **CLIENT | {"privacy__noise": "server", "federation__min_clients": 7},
    )
    agreed = f"protocols = ['committee']\nnoise_by = ['committee']\ncommittee = {MEMBERS[:4]}"
    grid = one_site(tmp_path, settings, agreed + OPEN)
    OPENED.clear()
    reply = ask(grid, order(settings))
    assert (str(tmp_path / PROMPTS) in OPENED) is (code is None)
    assert not (tmp_path / "spent.jsonl").exists() or code is None
    assert refusal(reply) is code


def test_a_policy_that_was_named_and_is_gone_lets_nothing_pass(tmp_path: Path) -> None:
    sites = Sites(tmp_path, make_settings(**CLIENT), {0: OPEN})
    (tmp_path / "0" / "policy.toml").unlink()
    assert refusal(ask(sites.grid, order(sites.settings))) is Refusal.POLICY_FILE
    assert sites.releases == {}


def test_a_refused_round_may_be_asked_for_again(tmp_path: Path) -> None:
    """For example when the site's hours begin."""
    sites = Sites(tmp_path, make_settings(**CLIENT), {0: "hours = '00:00-00:00'" + OPEN})
    assert refusal(ask(sites.grid, order(sites.settings))) is Refusal.HOURS
    (tmp_path / "0" / "policy.toml").write_text(OPEN)
    assert refusal(ask(sites.grid, order(sites.settings))) is None


def test_figures_stay_in_the_sites_own_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = make_settings(**CLIENT)
    sites = Sites(tmp_path, settings, {0: "largest_clipping_norm = 0.25" + OPEN})
    with caplog.at_level(logging.WARNING):
        reply = ask(sites.grid, order(settings))
    assert "clipping norm 1 is above 0.25" in caplog.text
    assert "0.25" not in str(reply.content)


def test_a_made_up_refusal_is_a_bad_reply() -> None:
    content = encode(Header(1, 1), Refused(Refusal.HOURS))
    content["Refused"] = ConfigRecord({"code": "\x1b[2J because"})
    with pytest.raises(ProtocolError, match="no known Refusal"):
        read_refusal(content)


@pytest.mark.parametrize("stage", ["share", "mask", "unmask", "deal", "committee", "cosign"])
def test_settings_that_change_after_the_order_to_train_are_refused(
    tmp_path: Path, stage: str
) -> None:
    """Else a server could have the policy judge one committee, and another be dealt to."""
    settings = make_settings(**CLIENT)
    sites = Sites(tmp_path, settings, {0: OPEN})
    node = next(iter(sites.grid.contexts))
    assert refusal(ask(sites.grid, order(settings), node)) is None
    sites.grid.contexts[node].run_config["robust.trim"] = settings.robust.trim - 1
    content = encode(Header(1, 1))
    message = Message(content, dst_node_id=node, message_type=f"query.{stage}")
    (answer,) = sites.grid.send_and_receive([message])
    assert code_of(answer) is Refusal.SETTINGS
