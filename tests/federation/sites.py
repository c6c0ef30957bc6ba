"""A deployed site for tests: prompts, a policy and a stamp, and a clock that jumps."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from flwr.app import Message

from fedgrpo.federation.node.clock import LateError
from fedgrpo.federation.wire.codec import HEADER
from fedgrpo.federation.wire.messages import read_refusal
from fedgrpo.settings import Scalar, Settings
from fedgrpo.site import Refusal
from fedgrpo.site.checked import Checked, files_stamp, keep_checked, looked_at
from fedgrpo.site.node_folder import folder_beside

T = TypeVar("T")

PUBLIC = "prompts_declared = 5000\nlongest_prompt_tokens = 64\nanswer_after_s = 60.0\n"
"""What a site declares, for a run of any defaults."""
EVERYTHING = (
    'models = ["*"]\nrewards = ["*"]\nprotocols = ["*"]\nnoise_by = ["*"]\n'
    "without_privacy = true\nmetrics_without_noise = true\n"
    "[prompt]\nlargest_epsilon = 1e6\n[client]\nlargest_epsilon = 1e6\n"
)


def make_site(
    folder: Path,
    policy: str = PUBLIC + EVERYTHING,
    rows: Sequence[Mapping[str, Any]] = ({"prompt": "a", "answer": "b"},),
) -> dict[str, Scalar]:
    """Make a site's folder, with checked prompts, and return its node's configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    prompts = folder / "prompts.jsonl"
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "policy.toml").write_text(policy)
    approve(prompts, len(rows))
    return {"prompts": str(prompts)}


def approve(prompts: Path, units: int = 1) -> None:
    """Leave the stamp that ``fedgrpo policy check`` leaves."""
    keep_checked(
        folder_beside(prompts), Checked(files_stamp(str(prompts)), {looked_at(Settings()): units})
    )


def code_of(reply: Message) -> Refusal | None:
    """The code of a refusal, which has nothing else in it; None of an answer."""
    assert reply.has_content(), reply.error
    code = read_refusal(reply.content)
    if code is not None:
        assert set(reply.content) == {HEADER, "Refused"}
        assert dict(reply.content["Refused"]) == {"code": code.value}
    return code


@dataclass
class FakeClock:
    """Time that passes only where somebody waits or says so."""

    time: float = 1000.0
    waits: list[float] = field(default_factory=list)

    def now(self) -> float:
        return self.time

    def wait_until(self, moment: float) -> None:
        self.waits.append(moment)
        self.time = max(self.time, moment)

    def run(self, work: Callable[[], T], until: float) -> T:
        result = work()
        if self.time > until:
            raise LateError
        return result
