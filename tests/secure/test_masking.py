"""Guarantees of the member's half: order, refusals, wiping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fedgrpo.ground.errors import ProtocolError
from fedgrpo.secure import MaskingClient, Roster
from fedgrpo.secure.state import STAGES, Secrets
from tests.secure.bucket import (
    BUCKET,
    ORDER,
    ROUND,
    RUN,
    Bucket,
    announce,
    bucket,
    members_and_roster,
    node,
    revived,
)

ME = node(0)
LOW_ORDER = [
    bytes(32),
    bytes([1]) + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]


def is_wiped(client: MaskingClient) -> bool:
    with pytest.raises(ProtocolError, match="stage done"):
        client.mask({}, np.zeros(1, np.uint32))
    return client._state.secrets == Secrets() and client._state.roster is None


def with_keys(roster: Roster, member: int, **changed: bytes) -> Roster:
    keys = list(roster.keys)
    at = roster.members.index(member)
    keys[at] = replace(keys[at], **changed)
    return replace(roster, keys=tuple(keys))


def shared(count: int = 3) -> Bucket:
    return bucket(count).share()


def masked(count: int = 3) -> Bucket:
    return shared(count).mask()


# Rosters

BAD_ROSTERS: dict[str, tuple[Callable[[Roster], Roster], str]] = {
    "duplicate members": (
        lambda r: replace(r, members=(r.members[0], r.members[0], *r.members[2:])),
        "twice",
    ),
    "without me": (
        lambda r: replace(r, members=(node(9), *r.members[1:])),
        "does not name node",
    ),
    "my sharing key altered": (
        lambda r: with_keys(r, ME, sharing=bytes(range(32))),
        "other keys for node",
    ),
    "my masking key altered": (
        lambda r: with_keys(r, ME, masking=bytes(range(32))),
        "other keys for node",
    ),
    "my commitment altered": (
        lambda r: with_keys(r, ME, seed_commitment=bytes(32)),
        "other keys for node",
    ),
    "threshold of half": (lambda r: replace(r, threshold=2), "threshold 2 for 4"),
    "threshold above size": (lambda r: replace(r, threshold=5), "threshold 5 for 4"),
    "threshold of zero": (lambda r: replace(r, threshold=0), "threshold 0"),
    "keys missing": (lambda r: replace(r, keys=r.keys[:-1]), "3 public keys for 4"),
    "key too short": (lambda r: with_keys(r, node(1), masking=bytes(31)), "32 bytes"),
    "commitment too long": (
        lambda r: with_keys(r, node(1), seed_commitment=bytes(33)),
        "32 bytes",
    ),
    "key used twice": (
        lambda r: with_keys(r, node(1), masking=r.keys_of(ME).masking),
        "one public key twice",
    ),
    "another order": (lambda r: replace(r, order=bytes(32)), "another order than the one"),
    "no order": (lambda r: replace(r, order=b""), "0 bytes for the order's digest"),
    "nobody": (lambda r: replace(r, members=(), keys=()), "threshold 3 for 0"),
}


@pytest.mark.parametrize("case", BAD_ROSTERS)
def test_a_bad_roster_is_refused_and_ends_the_members_part(case: str) -> None:
    change, reason = BAD_ROSTERS[case]
    clients, roster = members_and_roster(4)
    with pytest.raises(ProtocolError, match=reason):
        clients[ME].share(change(roster))
    assert is_wiped(clients[ME])


def test_a_threshold_of_one_is_refused_even_where_it_is_a_majority() -> None:
    client = MaskingClient.open(RUN, ROUND, ME, minimum=2, order=ORDER)
    with pytest.raises(ProtocolError, match="threshold 1 for 1"):
        client.share(announce({ME: client.public_keys}, threshold=1))


def test_a_roster_below_the_sites_own_minimum_is_refused() -> None:
    clients, roster = members_and_roster(3, minimum=4)
    with pytest.raises(ProtocolError, match="3 members, this site's minimum is 4"):
        clients[ME].share(roster)
    assert is_wiped(clients[ME])


def test_a_minimum_that_hides_nobody_is_refused() -> None:
    with pytest.raises(ProtocolError, match="hides nobody"):
        MaskingClient.open(RUN, ROUND, ME, minimum=1, order=ORDER)


@pytest.mark.parametrize("kind", ["sharing", "masking"])
@pytest.mark.parametrize("point", LOW_ORDER, ids=lambda point: point.hex()[:8])
def test_a_low_order_public_key_is_refused(kind: str, point: bytes) -> None:
    clients, roster = members_and_roster(3)
    with pytest.raises(ProtocolError, match="low order"):
        clients[ME].share(with_keys(roster, node(2), **{kind: point}))
    assert is_wiped(clients[ME])


@pytest.mark.parametrize("foreign", [{"run_id": RUN + 1}, {"round": ROUND - 1}])
def test_a_foreign_roster_is_refused_and_changes_nothing(foreign: dict[str, int]) -> None:
    clients, roster = members_and_roster(3)
    before = clients[ME].to_bytes()
    with pytest.raises(ProtocolError, match="asked about run"):
        clients[ME].share(replace(roster, **foreign))  # type: ignore[arg-type]
    assert clients[ME].to_bytes() == before


# Order


STEPS = ("share", "mask", "reveal")


@pytest.mark.parametrize(
    ("stage", "call"),
    [
        (stage, call)
        for at, stage in enumerate(STAGES)
        for wanted, call in enumerate(STEPS)
        if at != wanted
    ],
)
def test_every_call_out_of_order_or_repeated_is_refused_and_changes_nothing(
    stage: str, call: str
) -> None:
    made = bucket(3)
    for step in STEPS[: STAGES.index(stage)]:
        getattr(made, step)()
    client = made.clients[ME]
    before = client.to_bytes()
    calls: dict[str, Callable[[], object]] = {
        "share": lambda: client.share(made.roster),
        "mask": lambda: client.mask(made.inbox(ME), made.values[ME]),
        "reveal": lambda: client.reveal(RUN, ROUND, BUCKET, made.roster.members, []),
    }
    with pytest.raises(ProtocolError, match=f"stage {stage}"):
        calls[call]()
    assert client.to_bytes() == before


def test_a_revealed_member_gives_no_second_answer() -> None:
    made = masked().reveal()
    for lists in ((list(made.masked), []), (list(made.masked)[:2], list(made.masked)[2:])):
        with pytest.raises(ProtocolError, match="stage done"):
            made.clients[ME].reveal(RUN, ROUND, BUCKET, *lists)


# Ciphertexts and values


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("at", [0, 12, 50, 91])
def test_an_altered_ciphertext_is_refused_and_names_its_sender(at: int) -> None:
    made = shared()
    inbox = made.inbox(ME)
    inbox[node(1)] = flipped(inbox[node(1)], at)
    with pytest.raises(ProtocolError, match=f"cannot decrypt the shares of peer {node(1)}"):
        made.clients[ME].mask(inbox, made.values[ME])
    assert is_wiped(made.clients[ME])


@pytest.mark.parametrize("forged", [b"", b"short", bytes(94)])
def test_a_forged_ciphertext_is_refused(forged: bytes) -> None:
    made = shared()
    with pytest.raises(ProtocolError, match="cannot decrypt"):
        made.clients[ME].mask({**made.inbox(ME), node(2): forged}, made.values[ME])


def test_ciphertexts_cannot_be_swapped_between_senders_recipients_or_buckets() -> None:
    made = shared()
    one, two = node(1), node(2)
    for wrong in (made.sent[two][ME], made.sent[one][two], made.sent[ME][one]):
        client = revived(made.clients[ME])
        with pytest.raises(ProtocolError, match="cannot decrypt"):
            client.mask({one: wrong, two: made.sent[two][ME]}, made.values[ME])
    clients, roster = members_and_roster(3)
    elsewhere = revived(clients[one]).share(replace(roster, bucket=BUCKET + 1))[ME]
    clients[ME].share(roster)
    with pytest.raises(ProtocolError, match="cannot decrypt"):
        clients[ME].mask({one: elsewhere, two: clients[two].share(roster)[ME]}, made.values[ME])


def test_members_who_were_shown_different_rosters_do_not_go_on() -> None:
    clients, roster = members_and_roster(4)
    stranger = MaskingClient.open(RUN, ROUND, node(3), minimum=2, order=ORDER)
    keys = dict(zip(roster.members, roster.keys, strict=True)) | {node(3): stranger.public_keys}
    sent = clients[node(1)].share(announce(keys))
    clients[ME].share(roster)
    inbox = {node(1): sent[ME], node(2): clients[node(2)].share(roster)[ME]}
    with pytest.raises(ProtocolError, match=f"peer {node(1)}"):
        clients[ME].mask(inbox, np.zeros(4, np.uint32))


def test_members_who_followed_different_orders_do_not_go_on_whatever_each_is_told() -> None:
    """The server tells each its own order's digest, as if the bucket were of one mind."""
    clients, roster = members_and_roster(3)
    deceived = MaskingClient.open(RUN, ROUND, node(2), minimum=3, order=bytes(32))
    keys = dict(zip(roster.members, roster.keys, strict=True)) | {node(2): deceived.public_keys}
    told = announce(keys)
    sent = {n: clients[n].share(told) for n in (ME, node(1))}
    sent[node(2)] = deceived.share(replace(told, order=bytes(32)))
    for member, client in {ME: clients[ME], node(2): deceived}.items():
        inbox = {peer: dealt[member] for peer, dealt in sent.items() if peer != member}
        with pytest.raises(ProtocolError, match="dealt under another roster"):
            client.mask(inbox, np.zeros(4, np.uint32))
        assert is_wiped(client)


@pytest.mark.parametrize("stranger", [ME, node(9)])
def test_a_ciphertext_from_someone_who_is_no_mate_is_refused(stranger: int) -> None:
    made = shared()
    with pytest.raises(ProtocolError, match="no peers"):
        made.clients[ME].mask({**made.inbox(ME), stranger: bytes(94)}, made.values[ME])
    assert is_wiped(made.clients[ME])


def test_fewer_sharers_than_the_threshold_are_refused() -> None:
    made = bucket(5).share([ME, node(1)])
    with pytest.raises(ProtocolError, match="2 sharers where 3 are needed"):
        made.clients[ME].mask(made.inbox(ME), made.values[ME])
    assert is_wiped(made.clients[ME])


@pytest.mark.parametrize(
    "values",
    [np.zeros(4), np.zeros(4, np.int32), np.zeros((2, 2), np.uint32), np.zeros(0, np.uint32)],
    ids=["float", "signed", "matrix", "empty"],
)
def test_values_that_are_not_an_encoded_vector_are_refused(values: np.ndarray) -> None:
    made = shared()
    with pytest.raises(ProtocolError, match=r"not uint32 \(d,\)"):
        made.clients[ME].mask(made.inbox(ME), values)


def test_values_are_not_changed_in_place() -> None:
    made = shared()
    before = made.values[ME].copy()
    made.mask()
    np.testing.assert_array_equal(made.values[ME], before)


# Revealing

A, B, C, D = (node(i) for i in range(4))
BAD_LISTS: dict[str, tuple[list[int], list[int], str]] = {
    "both alive and dropped": ([A, B, C], [C, D], "both survived and dropped"),
    "me alive and dropped": ([A, B, C], [A, D], "both survived and dropped"),
    "one forgotten": ([A, B, C], [], "not exactly the sharers"),
    "one invented": ([A, B, C, D], [node(9)], "not exactly the sharers"),
    "one named twice": ([A, B, C, C], [D], "not exactly the sharers"),
    "too few survivors": ([A, B], [C, D], "2 survivors where 3 are needed"),
    "me not among them": ([B, C, D], [A], "dropped out itself"),
}


@pytest.mark.parametrize("case", BAD_LISTS)
def test_a_bad_list_of_survivors_is_refused_and_ends_the_members_part(case: str) -> None:
    survivors, dropped, reason = BAD_LISTS[case]
    client = masked(4).clients[ME]
    with pytest.raises(ProtocolError, match=reason):
        client.reveal(RUN, ROUND, BUCKET, survivors, dropped)
    assert is_wiped(client)


@pytest.mark.parametrize(
    "foreign", [(RUN + 1, ROUND, BUCKET), (RUN, ROUND + 1, BUCKET), (RUN, ROUND, BUCKET + 1)]
)
def test_a_request_about_another_round_is_refused_and_changes_nothing(
    foreign: tuple[int, int, int],
) -> None:
    made = masked()
    before = made.clients[ME].to_bytes()
    with pytest.raises(ProtocolError, match="asked about"):
        made.clients[ME].reveal(*foreign, list(made.masked), [])
    assert made.clients[ME].to_bytes() == before


def test_nobodys_seed_and_key_are_revealed_together() -> None:
    made = bucket(5).share().mask([A, B, C]).reveal()
    for answer in made.revealed.values():
        assert set(answer.seed_shares) == {A, B, C}
        assert set(answer.key_shares) == {D, node(4)}


# Messages and state


def test_every_ciphertext_has_the_same_size() -> None:
    made = bucket(5).share()
    assert {len(sealed) for sent in made.sent.values() for sealed in sent.values()} == {94}
    assert all(set(sent) == set(made.roster.peers_of(me)) for me, sent in made.sent.items())


def test_state_survives_as_bytes_at_every_stage() -> None:
    made = bucket(3)
    for step in (made.share, made.mask, made.reveal, lambda: made):
        client = made.clients[ME]
        assert revived(client).to_bytes() == client.to_bytes()
        assert revived(client).public_keys == client.public_keys
        step()  # continues from serialised states: see Bucket.step


@pytest.mark.parametrize(
    "data", [b"", b"\x80\x04.", b"{}", b"[]", b'{"format": 2}', b'{"format": 1, "stage": "late"}']
)
def test_an_unreadable_state_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="unreadable"):
        MaskingClient.from_bytes(data)


def secrets_of(client: MaskingClient) -> list[bytes]:
    held = client._state.secrets
    own = [held.seed, held.sharing_key, held.masking_key]
    return [s for s in (*own, *held.seed_shares.values(), *held.key_shares.values()) if s]


def contains(data: bytes, secret: bytes) -> bool:
    return secret in data or secret.hex().encode() in data


def test_the_state_holds_no_secret_after_revealing() -> None:
    made = bucket(4)
    secrets: set[bytes] = set()
    for step in (made.share, made.mask, made.reveal):
        held = secrets_of(made.clients[ME])
        assert all(contains(made.clients[ME].to_bytes(), secret) for secret in held)
        secrets.update(held)
        step()
    assert len(secrets) == 3 + 1 + 6  # keys and seed, own share, three peers' shares of both
    assert not any(contains(made.clients[ME].to_bytes(), secret) for secret in secrets)


def test_own_seed_and_keys_are_gone_once_the_vector_is_masked() -> None:
    made = shared()
    held = made.clients[ME]._state.secrets
    own = [held.seed, held.sharing_key, held.masking_key]
    made.mask()
    assert not any(contains(made.clients[ME].to_bytes(), secret) for secret in own)


def test_wiping_ends_the_members_part_at_any_stage() -> None:
    made = masked()
    secrets = secrets_of(made.clients[ME])
    made.clients[ME].wipe()
    assert is_wiped(made.clients[ME])
    assert not any(contains(made.clients[ME].to_bytes(), secret) for secret in secrets)


def test_no_secret_is_shown_in_repr_or_error() -> None:
    made = masked()
    secrets = secrets_of(made.clients[ME])
    shown = repr(made.clients[ME]) + repr(made.clients[ME]._state)
    with pytest.raises(ProtocolError) as refused:
        made.clients[ME].reveal(RUN, ROUND, BUCKET, [ME], [])
    shown += str(refused.value)
    assert not any(contains(shown.encode(), secret) for secret in secrets)
