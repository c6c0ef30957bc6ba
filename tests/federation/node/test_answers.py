"""Whatever is raised, a code leaves, and nothing else."""

from __future__ import annotations

from concurrent.futures import CancelledError

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.federation import LocalGrid
from fedgrpo.federation.node.answers import CODES, answering, refusal_of
from fedgrpo.federation.wire.codec import HEADER, Header, encode, read_header
from fedgrpo.federation.wire.link import refusal_words
from fedgrpo.ground import errors
from fedgrpo.ground.errors import FedGRPOError, PolicyError
from fedgrpo.site import CURES, Refusal
from tests.federation.sites import code_of

SECRET = "the patient's name is"
KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, FedGRPOError)
]
ARGUMENTS = {"MemberLostError": (1, SECRET)}


def made(kind: type[FedGRPOError]) -> FedGRPOError:
    if issubclass(kind, PolicyError):
        return kind(SECRET, code=Refusal.HOURS)
    return kind(*ARGUMENTS.get(kind.__name__, (SECRET,)))


def answer_to(error: BaseException, content: RecordDict | None = None) -> Message:
    def fail(message: Message, context: Context) -> RecordDict:
        raise error

    header = encode(Header(7, 3))
    order = header if content is None else content
    app = ClientApp()
    app.train()(answering(fail))
    grid = LocalGrid(app, [1], run_id=7)
    (reply,) = grid.send_and_receive([Message(order, dst_node_id=1, message_type="train")])
    return reply


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_of_our_own_has_one_code_whatever_its_text(kind: type[FedGRPOError]) -> None:
    reply = answer_to(made(kind))
    code = code_of(reply)
    assert code is refusal_of(made(kind))
    assert read_header(reply.content) == Header(7, 3)
    assert SECRET not in str(reply.content)


@given(st.sampled_from([KeyError, ValueError, MemoryError, SystemExit, CancelledError]), st.text())
def test_a_foreign_error_is_one_code_for_all(kind: type[BaseException], text: str) -> None:
    assert code_of(answer_to(kind(text))) is Refusal.FAILED


def test_the_closest_class_comes_first() -> None:
    for at, (kind, _) in enumerate(CODES):
        assert not any(issubclass(kind, before) for before, _ in CODES[:at]), kind


@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        RecordDict({HEADER: ConfigRecord({"version": "0.0.1", "run": 7})}),
        RecordDict({HEADER: ConfigRecord({"run": "x"})}),
    ],
)
def test_a_message_whose_header_cannot_be_read_is_answered_all_the_same(
    content: RecordDict,
) -> None:
    reply = answer_to(KeyError(), content)
    assert code_of(reply) is Refusal.FAILED
    assert read_header(reply.content) == Header(7, 0)


@pytest.mark.slow
@pytest.mark.parametrize("code", Refusal)
def test_the_operator_is_told_the_code_and_a_cure(code: Refusal) -> None:
    assert refusal_words(code) == f"refused, {code}: {CURES[code]}"
    assert refusal_words(code).isprintable()
