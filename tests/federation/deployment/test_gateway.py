"""From outside: what a stranger, a wrong node and a careless proxy get, byte by byte.

Everything here is said to one server, and after each thing a registered node is still answered.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import socket
import ssl
import time

import httpx
import pytest
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest, PushMessagesRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import Message, Metadata, ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from fedgrpo.federation.deployment.flower_internals.control import read_pushed
from fedgrpo.federation.deployment.gateway.paths import FLEET
from tests.federation.deployment.foreign_keys import FOREIGN_KEYS
from tests.federation.deployment.operated import heard, parts, signed, until, written

pytestmark = [pytest.mark.flower, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def paths(server):
    """Every path that the SuperLink has, as its operator reads it."""
    address, bearer = server.inner
    trust = ssl.create_default_context(cafile=str(server.state / "inner.pem"))
    with httpx.Client(verify=trust, trust_env=False) as client:
        headers = {"authorization": f"Bearer {bearer}"}
        api = client.get(f"https://{address}/openapi.json", headers=headers).json()
    return {*api["paths"], "/docs", "/docs/oauth2-redirect", "/openapi.json"}


@pytest.fixture(autouse=True)
def unharmed(server, site):
    """Whatever was said, a registered node is answered as before."""
    yield
    key, node = site
    asked = PullMessagesRequest(node=Node(node_id=node))
    status, body = server.fleet("pull-messages", key, asked)
    assert status == 200, body


def headers_of(key, **signing):
    return [(name.encode(), value.encode()) for name, value in signed(key, **signing).items()]


def words_of(body):
    return json.loads(body)["detail"]


def test_the_fixed_list_is_flowers_fleet(paths):
    assert {path.encode() for path in paths if path.startswith("/v1/fleet/")} == set(FLEET)


DETOURS = [
    b"%s", b"/v1/fleet/..%s", b"/v1/fleet/../..%s", b"/v1/fleet/%%2e%%2e/..%s", b"/%s",
    b"/v1/fleet/pull-messages/../../..%s", b"/v1/fleet/%%2e%%2e/%%2e%%2e/%%2e%%2e%s",
    b"/v1/fleet/..;%s", b"/;%s", b"/v1/fleet%%2f..%%2f..%s", b"/.%s", b"/v1/fleet/pull-messages%s",
    b"/v1/fleet/pull-messages;%s", b"/v1/fleet/pull-messages?x=%s", b"https://localhost%s",
    b"http://127.0.0.1%s", b"//localhost%s", b"%s?", b"%s/", b"%s%%00", b"/%%2e%s", b"\\%s",
    b"/v1/fleet/pull-messages%%00%s", b"/v1/fleet/pull-messages#%s",
]  # fmt: skip


def test_every_other_path_is_404_however_it_is_written(server, site, paths):
    """Also to a registered node."""
    closed = sorted(path.encode() for path in paths if path.encode() not in FLEET)
    assert len(closed) > 50
    tried = [*closed, *(path.replace(b"/", b"%2f") for path in closed)]
    tried += [*(path.replace(b"/", b"//") for path in closed), *map(bytes.upper, closed)]
    tried += [detour % path for detour in DETOURS for path in closed[::9]]
    shown = headers_of(site[0])
    methods = [(b"GET", b"POST")[number % 2] for number in range(len(tried))]
    asked = [*zip(methods, tried, strict=True), *((b"POST", path) for path in closed)]
    requests = [written(target, method, shown, keep=True) for method, target in asked]
    statuses = server.statuses(requests)
    assert set(statuses) == {404}, set(zip(asked, statuses, strict=True))


@pytest.mark.parametrize("path", [b"/v1/fleet/pull-messages", b"/v1/fleet/push-object"])
@pytest.mark.parametrize("method", [b"GET", b"PUT", b"DELETE", b"OPTIONS", b"HEAD", b"TRACE"])
def test_a_fleet_path_takes_posts_only(server, site, path, method):
    assert server.ask(path, method, headers_of(site[0]))[0] == 404


@pytest.mark.parametrize(
    "path", [*FLEET, b"/v1/fleet/pull-messages/", b"/v1/fleet/", b"/v1/Fleet/pull-messages"]
)
def test_nobody_is_let_in_without_a_registered_key(server, path):
    status, body = server.ask(path, body=b"anything")
    if path in FLEET:
        assert status == 401
        assert "no node's key" in words_of(body)
    else:
        assert status == 404


def test_hello_tells_time_and_version_and_nothing_else(server):
    status, body = server.ask(b"/hello", b"GET")
    assert status == 200
    said = json.loads(body)
    assert set(said) == {"time", "fedgrpo", "protocol"}
    assert abs(said["time"] - time.time()) < 60
    assert server.ask(b"/hello")[0] == 404
    assert server.ask(b"/hello?x", b"GET")[0] == 404


def test_an_answer_does_not_name_the_software_behind(server):
    answer = server.say(written(b"/nowhere", b"GET"))
    assert b"server:" not in answer.lower()
    assert b"uvicorn" not in answer.lower()


# Credentials -------------------------------------------------------------------------------------


def pull(node):
    return PullMessagesRequest(node=Node(node_id=node))


def test_a_key_that_is_not_registered_is_refused_in_words(server, site):
    from cryptography.hazmat.primitives.asymmetric import ec

    stranger = ec.generate_private_key(ec.SECP384R1())
    status, body = server.fleet("pull-messages", stranger, pull(site[1]))
    assert status == 401
    assert "not registered" in words_of(body)
    assert "public key" in json.loads(body)["extra"]


def test_a_revoked_key_is_refused_from_then_on(server):
    key, node = server.register()
    until(lambda: server.fleet("pull-messages", key, pull(node))[0] == 200)
    server.revoke(node)
    assert server.fleet("pull-messages", key, pull(node))[0] == 401
    until(lambda: "revoked" in words_of(server.fleet("pull-messages", key, pull(node))[1]))


def test_a_site_cannot_ask_for_another_one_by_its_own_key(server, site, other):
    for name, message in {
        "pull-messages": pull(other[1]),
        "send-node-heartbeat": SendNodeHeartbeatRequest(
            node=Node(node_id=other[1]), heartbeat_interval=30
        ),
        "activate-node": ActivateNodeRequest(
            public_key=public_key_to_bytes(other[0].public_key()), heartbeat_interval=30
        ),
    }.items():
        assert server.fleet(name, site[0], message)[0] == 401, name


def test_a_site_cannot_answer_in_another_ones_name(server, site, other):
    """Flower compares the node with its key, but not the source that a message names."""
    for node, source in ((site[1], other[1]), (other[1], site[1]), (site[1], 1), (site[1], 0)):
        message = Message(metadata=Metadata(run_id=7, src_node_id=source, dst_node_id=1))
        pushed = PushMessagesRequest(node=Node(node_id=node), messages_list=[message])
        status, body = server.fleet("push-messages", site[0], pushed)
        assert status == 401
        assert "its own name" in words_of(body)


def test_a_second_message_or_node_in_one_push_does_not_slip_through(server, site, other):
    own = Message(metadata=Metadata(run_id=7, src_node_id=site[1], dst_node_id=1))
    foreign = Message(metadata=Metadata(run_id=7, src_node_id=other[1], dst_node_id=1))
    mine = PushMessagesRequest(node=Node(node_id=site[1]), messages_list=[own]).SerializeToString()
    theirs = PushMessagesRequest(node=Node(node_id=other[1]), messages_list=[foreign])
    for body in (mine + theirs.SerializeToString(), theirs.SerializeToString() + mine):
        status, _ = server.ask(b"/v1/fleet/push-messages", headers=headers_of(site[0]), body=body)
        assert status == 401


def test_a_push_of_no_message_or_of_two_is_refused(server, site):
    own = Message(metadata=Metadata(run_id=7, src_node_id=site[1], dst_node_id=1))
    tree = ObjectTree(object_id="0" * 64)
    for messages, trees in (([], []), ([own], []), ([own, own], [tree]), ([own], [tree, tree])):
        pushed = PushMessagesRequest(
            node=Node(node_id=site[1]), messages_list=messages, message_object_trees=trees
        )
        status, body = server.fleet("push-messages", site[0], pushed)
        assert status == 400
        assert "one message" in words_of(body)


def test_what_a_node_says_of_its_own_time_does_not_come_inside():
    """The SuperLink adds such figures up for a run, and a NaN would be their sum for ever."""
    own = Message(metadata=Metadata(run_id=7, src_node_id=5, dst_node_id=1))
    pushed = PushMessagesRequest(
        node=Node(node_id=5), messages_list=[own], message_object_trees=[ObjectTree()],
        clientapp_runtime_list=[math.nan],
    )  # fmt: skip
    inside = read_pushed(pushed.SerializeToString())
    assert inside.single
    pushed.ClearField("clientapp_runtime_list")
    assert inside.body == pushed.SerializeToString()


def test_a_request_serves_once(server, site):
    key, node = site
    shown = headers_of(key)
    body = pull(node).SerializeToString()
    path = b"/v1/fleet/pull-messages"
    assert server.ask(path, headers=shown, body=body)[0] == 200
    again, said = server.ask(path, headers=shown, body=body)
    assert again == 401
    assert "sent before" in words_of(said)
    mirrored = [(n, mirror(v) if n == b"flwr-signature" else v) for n, v in shown]
    assert server.ask(path, headers=mirrored, body=body)[0] == 401


def mirror(signature):
    """The other signature that anybody can make of one: (r, -s)."""
    from cryptography.hazmat.primitives.asymmetric.utils import (
        decode_dss_signature,
        encode_dss_signature,
    )

    order = int(
        "ffffffffffffffffffffffffffffffffffffffffffffffff"
        "c7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16,
    )  # fmt: skip
    r, s = decode_dss_signature(base64.b64decode(signature))
    return base64.b64encode(encode_dss_signature(r, order - s))


@pytest.mark.parametrize(("ahead_s", "word"), [(60, "fast"), (-600, "slow")])
def test_a_wrong_clock_is_told(server, site, ahead_s, word):
    status, body = server.fleet("pull-messages", site[0], pull(site[1]), ahead_s=ahead_s)
    assert status == 401
    assert word in words_of(body)
    assert "timedatectl" in json.loads(body)["extra"]


BAD_CREDENTIALS = {
    "no signature": lambda shown: [pair for pair in shown if pair[0] != b"flwr-signature"],
    "no base64": lambda shown: [(n, b"%%%") for n, _ in shown],
    "no key": lambda shown: [(n, b"AAAA" if n == b"flwr-public-key" else v) for n, v in shown],
    "a long one": lambda shown: [(n, b"A" * 4096) for n, _ in shown],
    "another's signature": lambda shown: [
        (n, base64.b64encode(b"0" * 96) if n == b"flwr-signature" else v) for n, v in shown
    ],
    "a wrong time": lambda shown: [
        (n, b"yesterday" if n == b"flwr-timestamp" else v) for n, v in shown
    ],
    "a time without a zone": lambda shown: [
        (n, b"2026-01-01T00:00:00" if n == b"flwr-timestamp" else v) for n, v in shown
    ],
    "an empty time": lambda shown: [(n, b"" if n == b"flwr-timestamp" else v) for n, v in shown],
    "latin-1": lambda shown: [(n, b"\xff\xfe" if n == b"flwr-timestamp" else v) for n, v in shown],
}


@pytest.mark.parametrize("kind", FOREIGN_KEYS)
def test_a_stranger_s_key_of_any_kind_is_refused_in_words(server, site, kind):
    key = base64.b64encode(FOREIGN_KEYS[kind])
    shown = [(n, key if n == b"flwr-public-key" else v) for n, v in headers_of(site[0])]
    status, body = server.ask(b"/v1/fleet/pull-messages", headers=shown)
    assert status == 401
    assert "of a kind that Flower does not take" in words_of(body)


@pytest.mark.parametrize("what", BAD_CREDENTIALS)
def test_malformed_credentials_are_refused_in_words(server, site, what):
    shown = BAD_CREDENTIALS[what](headers_of(site[0]))
    status, body = server.ask(
        b"/v1/fleet/pull-messages", headers=shown, body=pull(site[1]).SerializeToString()
    )
    assert status == 401
    assert words_of(body)


def test_credentials_that_are_there_twice_are_refused(server, site, other):
    both = headers_of(site[0]) + headers_of(other[0])
    assert server.ask(b"/v1/fleet/pull-messages", headers=both)[0] == 400


def test_headers_from_outside_do_not_come_inside(server, site):
    """The secret that opens the SuperLink is the gateway's; a node cannot bring its own."""
    key, node = site
    tricks = [
        (b"authorization", b"Bearer guessed"), (b"x-forwarded-for", b"127.0.0.1"),
        (b"x-original-url", b"/v1/control/list-nodes"), (b"x-rewrite-url", b"/docs"),
        (b"x-http-method-override", b"GET"), (b"forwarded", b"for=127.0.0.1"),
        (b"x-forwarded-prefix", b"/v1/control"), (b"flwr-superexec-ts", b"1"),
        (b"content-encoding", b"gzip"), (b"connection", b"keep-alive, flwr-signature"),
    ]  # fmt: skip
    body = pull(node).SerializeToString()
    shown = headers_of(key) + tricks
    assert server.ask(b"/v1/fleet/pull-messages", headers=shown, body=body)[0] == 200


# HTTP --------------------------------------------------------------------------------------------

PULL = b"POST /v1/fleet/pull-messages HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
HIDDEN = b"POST /v1/control/list-nodes HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
SMUGGLED = {
    "two lengths": b"content-length: 0\r\ncontent-length: %d\r\n\r\n",
    "length and chunks": b"content-length: %d\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": b"transfer-encoding: chunked\r\ncontent-length: %d\r\n\r\n0\r\n\r\n",
    "chunks in capitals": b"Transfer-Encoding: xchunked\r\nContent-Length: %d\r\n\r\n",
    "chunks behind a tab": b"transfer-encoding:\tchunked\r\ncontent-length: %d\r\n\r\n0\r\n\r\n",
    "chunks behind a space": b"transfer-encoding : chunked\r\ncontent-length: %d\r\n\r\n",
    "a length with a sign": b"content-length: +%d\r\n\r\n",
    "a length with a space": b"content-length: 0 %d\r\n\r\n",
    "a negative length": b"content-length: -%d\r\n\r\n",
    "a folded line": b"content-length: 0\r\n %d\r\n\r\n",
    "a bare line feed": b"x: y\ncontent-length: %d\n\n",
}


@pytest.mark.parametrize("what", SMUGGLED)
def test_nothing_is_smuggled_behind_a_request(server, site, what):
    """Neither as a second answer of the SuperLink's, nor at all."""
    shown = b"".join(b"%s: %s\r\n" % pair for pair in headers_of(site[0]))
    raw = PULL + shown + SMUGGLED[what] % len(HIDDEN) + HIDDEN
    answer = server.say(raw, timeout=3)
    statuses = [int(line.split(b" ")[1]) for line in answer.split(b"\r\n") if line[:5] == b"HTTP/"]
    assert statuses
    assert 200 not in statuses[1:]
    assert set(statuses) <= {400, 401, 404, 411, 200}
    assert b"nodes" not in answer


def test_a_body_in_chunks_is_refused_before_it_is_read(server, site):
    head = [*headers_of(site[0]), (b"transfer-encoding", b"chunked")]
    raw = written(b"/v1/fleet/pull-messages", headers=head).replace(b"content-length: 0\r\n", b"")
    status, body = parts(server.say(raw))
    assert status == 411
    assert "size" in words_of(body)


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.9", b"FTP/1"])
def test_old_and_unknown_versions_get_no_further(server, version):
    raw = written(b"/v1/control/list-nodes", version=version)
    status, _ = parts(server.say(raw, timeout=10))
    assert status in (0, 400, 404, 505)


def test_a_websocket_or_another_protocol_is_not_begun(server):
    for upgrade in (b"websocket", b"h2c", b"TLS/1.2"):
        head = [
            (b"upgrade", upgrade), (b"connection", b"upgrade"), (b"sec-websocket-version", b"13"),
            (b"sec-websocket-key", b"AAAAAAAAAAAAAAAAAAAAAA=="), (b"http2-settings", b"AAMAAABk"),
        ]  # fmt: skip
        assert server.ask(b"/v1/control/stream-logs", b"GET", head)[0] in (400, 404)


def test_connect_opens_no_tunnel(server):
    address, _ = server.inner
    raw = b"CONNECT %s HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" % address.encode()
    status, _ = parts(server.say(raw, timeout=3))
    assert status in (400, 404)


def test_very_long_heads_are_cut_off(server):
    for raw in (
        written(b"/v1/fleet/pull-messages", headers=[(b"x", b"y" * 10_000_000)]),
        written(b"/" + b"a" * 1_000_000),
        written(b"/hello", b"GET", [(b"x%d" % i, b"y") for i in range(20_000)]),
    ):
        status, _ = parts(server.say(raw, timeout=20))
        assert status in (0, 400, 404, 431)


def test_noise_harms_nobody(server):
    for raw in (
        b"\x00" * 5000,
        b"\x16\x03\x01" * 100,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\r\n" * 99,
    ):
        assert parts(server.say(raw, timeout=2))[0] in (0, 400, 404)


# Size and pace -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2**16 + 1, 2**40, 10**18])
def test_a_huge_body_is_refused_before_it_is_sent(server, site, size):
    head = [*headers_of(site[0]), (b"expect", b"100-continue")]
    raw = written(b"/v1/fleet/pull-messages", headers=head)
    raw = raw.replace(b"content-length: 0", b"content-length: %d" % size)
    answer = server.say(raw)
    status, body = parts(answer)
    assert status == 413
    assert "more than" in words_of(body)
    assert b"100 Continue" not in answer


def test_a_stranger_need_not_send_his_body(server):
    raw = written(b"/v1/fleet/push-object", headers=[(b"expect", b"100-continue")])
    raw = raw.replace(b"content-length: 0", b"content-length: 100000000")
    began = time.monotonic()
    assert parts(server.say(raw))[0] == 401
    assert time.monotonic() - began < 15


# TLS ---------------------------------------------------------------------------------------------


def test_older_tls_is_refused(server):
    with pytest.raises((ssl.SSLError, ConnectionError)):
        server.connect(maximum_version=ssl.TLSVersion.TLSv1_2)
    with server.connect() as line:
        assert line.version() == "TLSv1.3"


def test_plain_text_is_refused(server):
    with socket.create_connection(("127.0.0.1", server.port), 30) as line:
        line.sendall(b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"fedgrpo" not in heard(line)


def test_a_handshake_that_breaks_off_harms_nobody(server):
    for raw in (b"\x16\x03\x01\x00\x05", b"\x16\x03\x03\xff\xff" + b"\x00" * 100):
        with socket.create_connection(("127.0.0.1", server.port), 30) as line:
            line.sendall(raw)
    with contextlib.suppress(ssl.SSLError):
        server.connect(check_hostname=False, verify_mode=ssl.CERT_NONE).close()


# Forwarding --------------------------------------------------------------------------------------


def test_what_a_node_asks_comes_back_as_flower_says_it(server, site):
    key, node = site
    asked = SendNodeHeartbeatRequest(node=Node(node_id=node), heartbeat_interval=30)
    status, body = server.fleet("send-node-heartbeat", key, asked)
    assert status == 200
    assert body
    status, body = server.fleet("get-run", key, GetRunRequest(node=Node(node_id=node), run_id=1))
    assert status >= 400
    assert json.loads(body)["code"] > 600, "Flower's own code"
