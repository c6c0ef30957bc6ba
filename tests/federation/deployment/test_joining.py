"""Who may join: by invitation, once, in time, and not before the operator has confirmed the key."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from fedgrpo.federation.deployment.flower_internals.control import public_bytes
from fedgrpo.federation.deployment.gateway.app import Gateway
from fedgrpo.federation.deployment.gateway.enrolment.admission import Asking, admit, leave
from fedgrpo.federation.deployment.gateway.enrolment.book import (
    Book,
    Enrolled,
    confirmed,
    invited,
    revoked,
)
from fedgrpo.federation.deployment.gateway.enrolment.joining import Enrolling
from fedgrpo.federation.deployment.gateway.inner import Inner
from fedgrpo.federation.deployment.gateway.refused import RefusedError
from fedgrpo.federation.deployment.invitation.fingerprint import fingerprint
from fedgrpo.federation.wire.versions import PROTOCOL, VERSION
from fedgrpo.ground.errors import RunError
from tests.federation.certificates import superlink_files
from tests.federation.deployment.foreign_keys import FOREIGN_KEYS
from tests.federation.deployment.operated import signed, until

TOKEN = "t" * 43


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return superlink_files(tmp_path_factory.mktemp("ca"))[0]


@pytest.fixture
def book(tmp_path):
    return invite(Book(tmp_path), "hospital-a")


@pytest.fixture
def door(book, root):
    return Door(book, root)


class Door:
    """The gateway as an application in this process. Nothing is behind it."""

    def __init__(self, book, root):
        self.gateway = Gateway(Inner("127.0.0.1:9", str(root), "none"), book)

    def ask(self, path, key, body=None, **signing):
        return self.send(path, signed(key, **signing), body)

    def send(self, path, headers, body=None):
        async def asked():
            transport = httpx.ASGITransport(app=self.gateway)
            async with httpx.AsyncClient(transport=transport, base_url="https://x") as client:
                if body is None:
                    return await client.get(path, headers=headers)
                return await client.post(path, headers=headers, content=body)

        return asyncio.run(asked())

    def join(self, key, site="hospital-a", token=TOKEN, **changed):
        said = {"site": site, "token": token, "fedgrpo": VERSION, "protocol": PROTOCOL} | changed
        return self.ask("/join", key, json.dumps(said).encode())


def invite(book, site, token=TOKEN, *, days=7, again=False):
    expires = int(time.time()) + days * 86_400
    book.change(site, lambda b: invited(b, token, expires, "", again=again, name=site))
    return book


def new_key():
    return ec.generate_private_key(ec.SECP384R1())


def text(key):
    return public_bytes(key).decode()


def mark(key):
    return fingerprint(public_bytes(key))


def confirm(book, key, site="hospital-a"):
    return book.change(site, lambda before: confirmed(before, site, mark(key), 1))


def words(answer):
    said = answer.json()
    assert said["extra"], "no cure"
    return said["detail"]


def test_a_key_that_came_with_an_invitation_waits_until_it_is_confirmed(door, book):
    key = new_key()
    answer = door.join(key)
    assert (answer.status_code, answer.json()["confirmed"]) == (200, False)
    site = book.sites()["hospital-a"]
    assert (site.state(0), site.key, site.fingerprint) == ("waits for confirmation", "", mark(key))
    hello = door.ask("/hello", key)
    assert hello.status_code == 423
    assert mark(key) in words(hello)
    assert confirm(book, key).state(0) == "takes part"
    assert door.ask("/hello", key).status_code == 503, "the SuperLink may know it, and is not there"
    assert door.join(key).json()["confirmed"], "the same key may come again"


def test_the_book_keeps_no_token_and_is_its_owner_s_alone(door, book, tmp_path):
    door.join(new_key())
    file = tmp_path / "sites.json"
    assert TOKEN not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0


def test_an_invitation_serves_one_key(door, book):
    assert door.join(new_key()).status_code == 200
    second = door.join(new_key())
    assert second.status_code == 409
    assert "used before, by another machine" in words(second)


def test_an_expired_invitation_is_refused(book, root):
    invite(book, "late", days=-1)
    answer = Door(book, root).join(new_key(), site="late")
    assert answer.status_code == 410
    assert "expired" in words(answer)


@pytest.mark.parametrize("changed", [{"site": "hospital-b"}, {"token": "u" * 43}, {"token": ""}])
def test_a_foreign_or_tampered_one_is_refused_and_nobody_learns_who_was_invited(door, changed):
    answer = door.join(new_key(), **changed)
    assert answer.status_code == 403
    assert "not known here" in words(answer)


def test_one_that_was_replaced_or_revoked_is_void(door, book):
    invite(book, "hospital-a", "v" * 43, again=True)
    assert door.join(new_key()).status_code == 403
    book.change("hospital-a", lambda before: revoked(before, "hospital-a"))
    assert door.join(new_key(), token="v" * 43).status_code == 403


def test_a_revoked_key_is_refused_from_the_next_request_on_and_never_comes_back(door, book):
    key = new_key()
    door.join(key)
    confirm(book, key)
    book.change("hospital-a", lambda before: revoked(before, "hospital-a"))
    hello = door.ask("/hello", key)
    assert hello.status_code == 401
    assert "revoked" in words(hello)
    invite(book, "hospital-a", again=True)
    answer = door.join(key)
    assert answer.status_code == 403
    assert "does not come back" in words(answer)


def test_a_new_machine_takes_the_old_one_s_place_when_it_is_confirmed_and_not_before(door, book):
    old, new = new_key(), new_key()
    door.join(old)
    confirm(book, old)
    invite(book, "hospital-a", again=True)
    assert door.join(new).status_code == 200
    assert book.sites()["hospital-a"].key.encode() == public_bytes(old)
    confirm(book, new)
    assert book.sites()["hospital-a"].key.encode() == public_bytes(new)
    assert door.ask("/hello", old).status_code == 401


def test_a_thief_s_key_is_not_confirmed_by_the_fingerprint_of_the_right_one(door, book):
    thief, right = new_key(), new_key()
    door.join(thief)
    with pytest.raises(RunError, match="is another one") as refused:
        confirm(book, right)
    assert "fedgrpo revoke hospital-a" in refused.value.cure
    assert not book.sites()["hospital-a"].key


def test_one_key_is_not_two_sites(door, book):
    invite(book, "hospital-b", "v" * 43)
    key = new_key()
    door.join(key)
    answer = door.join(key, site="hospital-b", token="v" * 43)
    assert answer.status_code == 409
    assert "another site" in words(answer)


@pytest.mark.parametrize("changed", [{"fedgrpo": "0.0.1"}, {"protocol": PROTOCOL + 1}])
def test_another_version_is_named_before_it_joins(door, book, changed):
    answer = door.join(new_key(), **changed)
    assert answer.status_code == 409
    assert f"the server runs fedgrpo {VERSION}" in words(answer)
    assert not book.sites()["hospital-a"].used_by


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b'{"site": 1}', b"\xff", b"x" * 4096])
def test_what_is_no_request_to_join_is_refused_in_words(door, body):
    answer = door.ask("/join", new_key(), body)
    assert answer.status_code == 400
    assert "no invitation" in words(answer)


def test_too_much_and_too_often_are_refused(door):
    key = new_key()
    assert door.ask("/join", key, b"x" * 5000).status_code == 413
    statuses = [door.join(new_key(), token="u" * 43).status_code for _ in range(25)]
    assert statuses[0] == 403
    assert statuses[-1] == 429


def test_a_clock_that_is_wrong_is_named_before_the_invitation_is_used(door, book):
    answer = door.ask("/join", new_key(), b"{}", ahead_s=-3600)
    assert answer.status_code == 401
    assert "clock is 3600 s slow" in words(answer)


def test_a_request_to_join_serves_once(door, book):
    """Whoever has seen one does nothing with it, not even with an invitation of his own."""
    shown = signed(new_key())
    said = {"site": "hospital-a", "token": TOKEN, "fedgrpo": VERSION, "protocol": PROTOCOL}
    assert door.send("/join", shown, json.dumps(said).encode()).status_code == 200
    invite(book, "hospital-b", "v" * 43)
    said |= {"site": "hospital-b", "token": "v" * 43}
    again = door.send("/join", shown, json.dumps(said).encode())
    assert again.status_code == 401
    assert "sent before" in words(again)
    assert not book.sites()["hospital-b"].used_by


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff", b"[" * 4000, b'{"site": 1}'])
def test_what_is_no_question_about_an_invitation_is_refused_in_words(door, body):
    answer = door.send("/invited", {}, body)
    assert answer.status_code == 400
    assert "no invitation" in words(answer)


def test_whether_an_invitation_is_open_is_said_to_who_has_it_and_to_nobody_else(door):
    said = {"site": "hospital-a", "token": TOKEN, "fedgrpo": VERSION, "protocol": PROTOCOL}

    def look(**changed):
        answer = door.send("/invited", {}, json.dumps(said | changed).encode())
        return answer.status_code, answer.json().get("detail")

    assert look()[0] == 200
    assert look(token="u" * 43) == look(site="hospital-b") == look(site="", token="")
    assert look(token="u" * 43)[0] == 403
    door.join(new_key())
    assert look()[0] == 409
    assert [look()[0] for _ in range(25)][-1] == 429


def test_a_key_of_another_kind_uses_up_nothing(door, book):
    answer = door.join(ec.generate_private_key(ec.SECP256K1()))
    assert answer.status_code == 401
    assert "of a kind that Flower does not take" in words(answer)
    assert not book.sites()["hospital-a"].used_by


def named(door, key, path="/join"):
    """Ask with a key of which only the public half is at hand, whatever that is."""
    shown = signed(new_key()) | {"flwr-public-key": base64.b64encode(key).decode()}
    return door.send(path, shown, b"{}")


@pytest.mark.parametrize("kind", FOREIGN_KEYS)
def test_a_stranger_s_key_of_any_kind_is_refused_in_words(door, kind):
    answer = named(door, FOREIGN_KEYS[kind])
    assert answer.status_code == 401
    assert "of a kind that Flower does not take" in words(answer)


def test_a_key_has_one_text_so_that_it_is_known_again(door, book):
    """Else a revoked key would come back, or stand for two sites, with a remark before it."""
    key = new_key()
    door.join(key)
    book.change("hospital-a", lambda before: revoked(before, "hospital-a"))
    invite(book, "hospital-a", again=True)
    text = public_bytes(key)
    for other in (b"a remark\n" + text, text.strip(), text.replace(b"\n", b"\r\n"), text + b"\xff"):
        shown = signed(key) | {"flwr-public-key": base64.b64encode(other).decode()}
        said = {"site": "hospital-a", "token": TOKEN, "fedgrpo": VERSION, "protocol": PROTOCOL}
        assert door.send("/join", shown, json.dumps(said).encode()).status_code == 401
    assert not book.sites()["hospital-a"].used_by


@pytest.mark.parametrize(
    "changed",
    [
        {"fedgrpo": "1\n2026-01-01T00:00:00Z hospital-a takes part from now on"},
        {"fedgrpo": "\x1b[2J"},
        {"site": "hospital-a\u202e"},
        {"site": "../sites"},
        {"token": "\u00e4" * 43},
        {"protocol": 10**30},
    ],
)
def test_no_stranger_writes_into_the_operator_s_log(door, caplog, changed):
    with caplog.at_level(logging.INFO):
        answer = door.join(new_key(), **changed)
    assert answer.status_code == 400
    assert "no invitation" in words(answer)
    assert told(caplog) == ["refused 400 127.0.0.1: this is no invitation that a server could read"]


def told(caplog):
    """What the operator's log has."""
    return [record.message for record in caplog.records if record.name.startswith("fedgrpo")]


def test_of_two_keys_that_come_at_once_with_one_invitation_one_waits(door, book):
    keys = [new_key() for _ in range(6)]
    with ThreadPoolExecutor(len(keys)) as pool:
        found = list(pool.map(lambda key: admitted(book, key), keys))
    assert sum(found) == 1
    assert book.sites()["hospital-a"].waiting.encode() == public_bytes(keys[found.index(True)])


def admitted(book, key):
    asking = Asking(site="hospital-a", token=TOKEN, fedgrpo=VERSION, protocol=PROTOCOL)
    with contextlib.suppress(RefusedError):
        return bool(admit(book, asking, public_bytes(key).decode(), time.time()))
    return False


def test_a_stranger_lets_no_site_go(door, book):
    key = new_key()
    door.join(key)
    confirm(book, key)
    before = book.sites()
    for stranger in (new_key(), new_key()):
        with pytest.raises(RefusedError, match="registered by hand"):
            leave(book, public_bytes(stranger).decode())
    assert book.sites() == before
    assert leave(book, public_bytes(key).decode()) == "hospital-a"
    assert book.sites()["hospital-a"].state(0) == "revoked"


def test_who_leaves_while_another_machine_takes_its_place_takes_that_one_not_along(
    door, book, monkeypatch
):
    old, new = new_key(), new_key()
    door.join(old)
    confirm(book, old)
    invite(book, "hospital-a", again=True)
    door.join(new)
    change = Book.change

    def confirmed_meanwhile(self, name, changed):
        monkeypatch.setattr(Book, "change", change)
        confirm(book, new)
        return change(self, name, changed)

    monkeypatch.setattr(Book, "change", confirmed_meanwhile)
    with pytest.raises(RefusedError):
        leave(book, public_bytes(old).decode())
    assert book.sites()["hospital-a"].key.encode() == public_bytes(new)


def test_the_book_is_read_once_for_a_node_s_request(door, monkeypatch):
    key, read, sites = new_key(), [], Book.sites
    door.join(key)
    monkeypatch.setattr(Book, "sites", lambda self: read.append(1) or sites(self))
    assert door.ask("/hello", key).status_code == 423
    assert read == [1]


def test_a_book_that_is_not_there_is_the_same_each_time(tmp_path):
    """Else its watcher would ask the SuperLink twice a second."""
    assert Book(tmp_path).sites() is Book(tmp_path).sites()


def test_a_refusal_is_forgotten_with_its_request(door, book):
    """One that is raised again and again keeps the frames of all who ever raised it."""
    for _ in range(3):
        assert door.send("/nowhere", {}, b"x").status_code == 404
    (book._folder / "sites.json").write_text("torn")
    for _ in range(3):
        assert door.ask("/hello", new_key()).status_code == 503
    gc.collect()
    assert not [left for left in gc.get_objects() if type(left) is RefusedError]


def test_the_log_tells_of_so_many_refusals_of_an_address_and_of_no_more(door, caplog):
    with caplog.at_level(logging.INFO):
        for _ in range(120):
            door.send("/nowhere", {}, b"x")
    assert 100 <= len(told(caplog)) <= 110


def test_a_site_says_what_it_runs_and_only_of_itself(book):
    enrolling, right, other = Enrolling(book), new_key(), new_key()
    book.change("hospital-a", lambda before: before.model_copy(update={"key": text(right)}))

    def say(key, version):
        headers = {b"fedgrpo-version": version}
        asyncio.run(enrolling.hear_version(public_bytes(key).decode(), headers))
        return book.sites()["hospital-a"].version

    assert say(right, b"0.0.1") == "0.0.1"
    assert say(other, b"6.6.6") == "0.0.1"
    for nonsense in (b"", b"x" * 41, b"1\n2", b"<script>", b"\xff"):
        assert say(right, nonsense) == "0.0.1"
    assert say(right, VERSION.encode()) == VERSION
    for number in range(20):
        say(right, b"%d" % number)
    assert int(book.sites()["hospital-a"].version) < 19, "it may have the book written for ever"


@pytest.mark.flower
def test_a_running_server_lets_in_who_is_confirmed_and_shuts_out_who_is_revoked(server):
    book, key = Book(server.state), new_key()
    invite(book, "hospital-z")
    door = f"https://localhost:{server.port}"
    with httpx.Client(verify=str(server.ca), trust_env=False, timeout=60) as client:

        def hello():
            return client.get(f"{door}/hello", headers=signed(key)).status_code

        said = {"site": "hospital-z", "token": TOKEN, "fedgrpo": VERSION, "protocol": PROTOCOL}
        joined = client.post(f"{door}/join", headers=signed(key), content=json.dumps(said).encode())
        assert joined.status_code == 200, joined.text
        assert hello() == 423
        confirm(book, key, "hospital-z")
        heard = []
        until(lambda: heard.append(hello()) or 200 in heard, "the server's look into its book")
        assert set(heard) <= {423, 200}
        told = signed(key) | {"fedgrpo-version": "0.0.1"}
        assert client.get(f"{door}/hello", headers=told).status_code == 200
        assert book.sites()["hospital-z"].version == "0.0.1"
        invite(book, "late", "l" * 43, days=-1)
        for changed, status in (
            ({}, 409),
            ({"token": "u" * 43}, 403),
            ({"site": "nobody"}, 403),
            ({"site": "late", "token": "l" * 43}, 410),
            ({"fedgrpo": "0.0.1"}, 409),
            ({"token": 7}, 400),
        ):
            content = json.dumps(said | changed).encode()
            refused = client.post(f"{door}/join", headers=signed(new_key()), content=content)
            assert (refused.status_code, bool(words(refused))) == (status, True), changed
        assert hello() == 200, "the server is unharmed"
        left = client.post(f"{door}/leave", headers=signed(key), content=b"{}")
        assert left.status_code == 200, left.text
        assert hello() == 401


@pytest.mark.flower
def test_a_site_that_the_superlink_refuses_keeps_no_other_one_out(server):
    """A key that was unregistered by hand never comes back, and sites behind it are let in."""
    book, dead, key = Book(server.state), server.register(), new_key()
    server.revoke(dead[1])
    book.change("hospital-x", lambda _: Enrolled(key=public_bytes(dead[0]).decode(), joined=1))
    book.change("hospital-y", lambda _: Enrolled(key=public_bytes(key).decode(), joined=1))
    with httpx.Client(verify=str(server.ca), trust_env=False, timeout=60) as client:
        hello = f"https://localhost:{server.port}/hello"
        until(lambda: client.get(hello, headers=signed(key)).status_code == 200, "the other site")
    for name in ("hospital-x", "hospital-y"):
        book.change(name, lambda before, name=name: revoked(before, name))
