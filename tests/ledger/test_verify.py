"""A ledger is accepted as it was written, and in no other way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedgrpo.ground.errors import LedgerError, RunError
from fedgrpo.ledger import (
    FILE,
    Checkpoint,
    End,
    Ledger,
    RoundEntry,
    add_cosignature,
    cosign,
    replay,
    verify,
)
from fedgrpo.ledger.checkpoints import MEMBER, sign
from fedgrpo.ledger.entries import canonical
from fedgrpo.privacy.accounting.composition import epsilon_gaussian
from fedgrpo.privacy.accounting.guarantees import guarantees
from tests.ledger.runs import (
    COMMITTEE,
    HASHES,
    MEMBER_SEEDS,
    MEMBERS,
    SEED,
    SETTINGS,
    WEIGHTS,
    changed,
    head,
    last,
    round_entry,
    write_run,
)


def test_a_ledger_that_fits_is_accepted_with_what_it_says(tmp_path: Path) -> None:
    verdict = verify(write_run(tmp_path))
    assert (verdict.rounds, verdict.aborted, verdict.ended) == (2, 0, True)
    assert verdict.epsilon[0].epsilon == pytest.approx(epsilon_gaussian(20.0, 2, 1e-5))
    assert verdict.public_key == Ledger(tmp_path / FILE, SEED).public_key
    assert verdict.checkpoint.size == 4


@pytest.mark.slow
def test_any_single_byte_changed_is_rejected(tmp_path: Path) -> None:
    """Exhaustive over places; at each, a neighbour and the other case."""
    path = write_run(tmp_path) / FILE
    content, tried = path.read_bytes(), 0
    for place, byte in enumerate(content):
        for other in (byte ^ 0x20, byte ^ 1):
            forged = content[:place] + bytes([other]) + content[place + 1 :]
            with pytest.raises(LedgerError):
                replay(forged)
            tried += 1
    assert tried == 2 * len(content)
    replay(content)


@pytest.mark.slow
def test_a_byte_missing_or_doubled_is_rejected(tmp_path: Path) -> None:
    content = (write_run(tmp_path) / FILE).read_bytes()
    for place in range(0, len(content), 5):
        for forged in (
            content[:place] + content[place + 1 :],
            content[:place] + content[place : place + 1] + content[place:],
        ):
            with pytest.raises(LedgerError):
                replay(forged)


def test_any_single_byte_changed_in_the_final_adapter_is_rejected(tmp_path: Path) -> None:
    weights = write_run(tmp_path) / WEIGHTS
    content = weights.read_bytes()
    for place in range(len(content)):
        weights.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(LedgerError, match=r"weights\.bin is not the file that line 4"):
            verify(tmp_path)
    weights.unlink()
    with pytest.raises(LedgerError, match=r"weights\.bin is not the file"):
        verify(tmp_path)


@pytest.mark.parametrize("name", ["other.bin", "deep/er/other.bin"])
def test_a_file_slipped_in_beside_the_adapter_is_rejected(tmp_path: Path, name: str) -> None:
    slipped = write_run(tmp_path) / "adapter" / name
    slipped.parent.mkdir(parents=True, exist_ok=True)
    slipped.write_bytes(b"")
    with pytest.raises(LedgerError, match=r"other\.bin is no file that line 4"):
        verify(tmp_path)


@pytest.mark.parametrize("target", ["weights.bin", ".", "nowhere"])
def test_a_link_slipped_in_beside_the_adapter_is_rejected(tmp_path: Path, target: str) -> None:
    (write_run(tmp_path) / "adapter" / "link").symlink_to(target)
    with pytest.raises(LedgerError, match="link is no file that line 4"):
        verify(tmp_path)


def test_an_adapter_of_which_the_end_names_nothing_is_rejected(tmp_path: Path) -> None:
    entries = (head(), round_entry(1), End(rounds=1, adapter=HASHES[1], files={}))
    with pytest.raises(LedgerError, match=r"weights\.bin is no file that line 3"):
        verify(write_run(tmp_path, *entries))


@pytest.mark.parametrize("name", ["{run}/ledger.jsonl", "../else", "adapter/../ledger.jsonl", "x"])
def test_an_end_that_names_what_is_not_in_the_adapters_folder_is_rejected(
    tmp_path: Path, name: str
) -> None:
    stated = {name.format(run=tmp_path): HASHES[1]}
    entries = (head(), round_entry(1), End(rounds=1, adapter=HASHES[1], files=stated))
    with pytest.raises(LedgerError, match="is not in the folder adapter"):
        verify(write_run(tmp_path, *entries))


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_the_first_entry_that_does_not_fit_is_pointed_at(tmp_path: Path, number: int) -> None:
    path = write_run(tmp_path) / FILE
    lines = path.read_bytes().splitlines(keepends=True)
    tree = json.loads(lines[number - 1])
    tree["entry"]["adapter"] = HASHES[5]
    lines[number - 1] = canonical(tree) + b"\n"
    path.write_bytes(b"".join(lines))
    with pytest.raises(LedgerError, match=rf"ledger\.jsonl, line {number}: its root"):
        verify(tmp_path)


@pytest.mark.parametrize("kept", [[0, 2, 3], [1, 2, 3], [0, 2, 1, 3], [0, 0, 1, 2, 3], [0, 1, 1]])
def test_lines_left_out_moved_or_repeated_are_rejected(tmp_path: Path, kept: list[int]) -> None:
    lines = (write_run(tmp_path) / FILE).read_bytes().splitlines(keepends=True)
    with pytest.raises(LedgerError, match="line"):
        replay(b"".join(lines[number] for number in kept))


def test_a_finished_run_whose_last_entries_are_gone_is_rejected(tmp_path: Path) -> None:
    path = write_run(tmp_path) / FILE
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(LedgerError, match="line 3: it is the last one, and beside it is adapter"):
        verify(tmp_path)
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(LedgerError, match="beside it is adapter"):
        verify(tmp_path)
    (tmp_path / WEIGHTS).parent.rmdir()
    assert not verify(tmp_path).ended
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(LedgerError, match=r"beside it is summary\.json: no end names it"):
        verify(tmp_path)


FORGED: dict[str, dict[str, object]] = {
    "its epsilon is not what the accountant computes": {"epsilon": round_entry(1).epsilon},
    "round 3 follows round 1": {"round": 3},
    "it does not begin with the adapter": {"adapter": HASHES[5]},
    "trim is 0, the settings and the head say 1": {"trim": 0},
    "noise_multiplier is 19.0": {"noise_multiplier": 19.0},
    "basis is": {"basis": HASHES[4]},
    "clipping norm 11.0 is further than": {"clipping_norm": 11.0},
    "clipping norm 0.05 is further than": {"clipping_norm": 0.05},
    "model is": {"model": HASHES[4]},
    "settings is": {"settings": HASHES[4]},
    "protocol is 'plain'": {"protocol": "plain"},
    "an aborted round changed the adapter": {"aborted": "too few"},
}


@pytest.mark.parametrize("fault", FORGED)
def test_a_server_that_signs_what_does_not_follow_is_found_out(tmp_path: Path, fault: str) -> None:
    entry = changed(round_entry(2), **FORGED[fault])
    write_run(tmp_path, head(), round_entry(1), entry)
    with pytest.raises(LedgerError, match=f"line 3: {fault}"):
        verify(tmp_path)


def test_a_round_beyond_those_of_the_settings_is_found_out(tmp_path: Path) -> None:
    write_run(tmp_path, head(), *(round_entry(number) for number in range(1, 5)))
    with pytest.raises(LedgerError, match="line 5: round 4 is beyond rounds = 3 of the settings"):
        verify(tmp_path)


@pytest.mark.parametrize("line", [b"[" * 100_000, b'{"entry":' * 2_000 + b"0" + b"}" * 2_000])
def test_a_line_nested_beyond_all_measure_is_rejected_like_any_other(
    tmp_path: Path, line: bytes
) -> None:
    path = write_run(tmp_path) / FILE
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(LedgerError, match="line 5: it is no JSON"):
        verify(tmp_path)


def test_a_head_whose_settings_are_not_those_of_its_fingerprint_is_rejected(
    tmp_path: Path,
) -> None:
    write_run(tmp_path, changed(head(), fingerprint=HASHES[3]))  # type: ignore[arg-type]
    with pytest.raises(LedgerError, match="line 1: its fingerprint"):
        verify(tmp_path)


def test_an_end_elsewhere_than_where_the_last_round_ended_is_rejected(tmp_path: Path) -> None:
    entry = End(rounds=1, adapter=HASHES[2], files={})
    write_run(tmp_path, head(), round_entry(1), entry)
    with pytest.raises(LedgerError, match="line 3: it does not end where the last round did"):
        verify(tmp_path)


def test_aborted_rounds_are_counted_and_cost_privacy(tmp_path: Path) -> None:
    entry = changed(round_entry(2, aborted="too few"), result=HASHES[1])
    verdict = verify(write_run(tmp_path, head(), round_entry(1), entry))
    assert (verdict.rounds, verdict.aborted, verdict.ended) == (2, 1, False)
    assert verdict.epsilon == round_entry(2).epsilon


def test_another_key_than_the_one_known_is_rejected(tmp_path: Path) -> None:
    write_run(tmp_path)
    known = Ledger(tmp_path / FILE, SEED).public_key
    verify(tmp_path, key=known)
    with pytest.raises(LedgerError, match="its key is"):
        verify(tmp_path, key=MEMBERS[0])


def test_a_directory_without_a_ledger_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"holds no ledger\.jsonl"):
        verify(tmp_path)


def test_members_vouch_for_what_they_saw(tmp_path: Path) -> None:
    write_run(
        tmp_path,
        head(COMMITTEE),
        round_entry(1, COMMITTEE),
        round_entry(2, COMMITTEE),
        last_of(tmp_path),
    )
    checkpoints = replay((tmp_path / FILE).read_bytes()).checkpoints
    add_cosignature(tmp_path, cosign(checkpoints[1], MEMBER_SEEDS[0]))
    add_cosignature(tmp_path, cosign(checkpoints[3], MEMBER_SEEDS[0]))
    add_cosignature(tmp_path, cosign(checkpoints[2], MEMBER_SEEDS[1]))
    assert verify(tmp_path).cosigned == {MEMBERS[0]: 4, MEMBERS[1]: 3}


def test_two_ledgers_of_one_run_cannot_both_be_vouched_for(tmp_path: Path) -> None:
    first, second = round_entry(1, COMMITTEE), round_entry(2, COMMITTEE)
    write_run(tmp_path / "shown", head(COMMITTEE), first, second)
    fork = changed(second, finished=9)
    write_run(tmp_path / "told", head(COMMITTEE), first, fork)
    seen = replay((tmp_path / "shown" / FILE).read_bytes()).checkpoints[-1]
    add_cosignature(tmp_path / "told", cosign(seen, MEMBER_SEEDS[0]))
    with pytest.raises(LedgerError, match="vouches for another ledger of 3 entries"):
        verify(tmp_path / "told")


def test_nobody_else_vouches_in_a_members_place(tmp_path: Path) -> None:
    write_run(tmp_path, head(COMMITTEE), round_entry(1, COMMITTEE))
    checkpoint = replay((tmp_path / FILE).read_bytes()).checkpoints[-1]
    outsider = cosign(checkpoint, bytes(32))
    forged = type(outsider)(checkpoint, MEMBERS[0], outsider.signature)
    as_server = type(outsider)(checkpoint, MEMBERS[0], sign(checkpoint, MEMBER_SEEDS[0]))
    for cosignature in (outsider, forged, as_server):
        (tmp_path / "cosignatures.jsonl").unlink(missing_ok=True)
        add_cosignature(tmp_path, cosignature)
        with pytest.raises(LedgerError, match="not a member's own"):
            verify(tmp_path)


def test_a_checkpoint_is_written_as_transparency_logs_write_it() -> None:
    body = Checkpoint("ab" * 16, 7, "00" * 32).body.decode()
    assert body == f"fedgrpo/{'ab' * 16}\n7\n{'A' * 43}=\n"
    assert sign(Checkpoint("a", 1, "00" * 32), SEED) != sign(
        Checkpoint("a", 1, "00" * 32), SEED, MEMBER
    )


def last_of(folder: Path) -> End:
    """The end of a run whose weights are about to be written by ``write_run``."""
    write_run(folder / "like")
    return last(folder / "like")


def test_entries_say_nothing_of_a_single_client_but_its_commitment() -> None:
    names = set(RoundEntry.__dataclass_fields__)
    assert not names & {"reward", "loss", "nodes", "members", "updates"}
    assert SETTINGS.fingerprint() == round_entry(1).settings


def unopened(round: int) -> RoundEntry:
    """A round of the committee that opened nothing."""
    entry = round_entry(round, COMMITTEE, aborted="a member was lost")
    epsilon = guarantees(COMMITTEE, round - 1)
    return changed(entry, result=entry.adapter, released=False, epsilon=epsilon)


def test_a_round_of_a_committee_that_opened_nothing_costs_nothing(tmp_path: Path) -> None:
    second = changed(round_entry(2, COMMITTEE), adapter=HASHES[0], epsilon=guarantees(COMMITTEE, 1))
    verdict = verify(write_run(tmp_path, head(COMMITTEE), unopened(1), second))
    assert (verdict.rounds, verdict.aborted) == (2, 1)
    assert verdict.epsilon == guarantees(COMMITTEE, 1)


@pytest.mark.parametrize(
    ("lie", "fault"),
    [
        (changed(unopened(1), epsilon=guarantees(COMMITTEE, 1)), "epsilon is not"),
        (changed(unopened(1), aborted=""), "released nothing"),
        (changed(round_entry(1, COMMITTEE), committee=MEMBERS[:3]), "3 members computed it"),
        (changed(round_entry(1, COMMITTEE), committee=(*MEMBERS[:3], "0" * 64)), "not on the"),
        (changed(round_entry(1, COMMITTEE), committee=MEMBERS[:1] * 4), "4 members"),
    ],
    ids=["charged", "not aborted", "three", "stranger", "one fourfold"],
)
def test_what_an_entry_says_of_the_committee_must_fit(
    tmp_path: Path, lie: RoundEntry, fault: str
) -> None:
    with pytest.raises(LedgerError, match=fault):
        verify(write_run(tmp_path, head(COMMITTEE), lie))


def test_no_round_without_a_committee_is_free_or_names_members(tmp_path: Path) -> None:
    free = changed(round_entry(1), released=False, epsilon=guarantees(SETTINGS, 0))
    with pytest.raises(LedgerError, match="only an aborted round of a committee"):
        verify(write_run(tmp_path / "free", head(), free))
    with pytest.raises(LedgerError, match="did not compute it"):
        verify(write_run(tmp_path / "named", head(), changed(round_entry(1), committee=MEMBERS)))
