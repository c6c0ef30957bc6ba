"""What goes on, looked at: who may, by which name, with what it can do to nobody."""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.ground.errors import RunError, SettingsError
from fedgrpo.report.watch.app import Lately, Watched, application
from fedgrpo.report.watch.metrics import Kind, Sample, exposition
from fedgrpo.report.watch.page import Cell, Facts, Page, Table, render
from fedgrpo.report.watch.place import PASSWORD, Place, kept_password
from fedgrpo.report.watch.problem import Problem
from fedgrpo.report.watch.serving import LOOKED_AT, server
from tests.federation.certificates import superlink_files

WORD = "p" * 43
KINDS = (Kind("fedgrpo_x", "Of a test.", ("site",)),)
WRONG: list[str | list[str]] = [
    [], "", WORD, f"Bearer {WORD}x", f"Bearer {WORD} ", "Basic %%", "Basic", f"Digest {WORD}",
    [f"Bearer {WORD}"] * 2,
]  # fmt: skip
PATHS = ("/", "/status.json", "/metrics", "/picture.png", "/style.css")


def shown(text: str) -> Page:
    cell = Cell(text, "bad")
    return Page(
        title=text,
        sentence=cell,
        problems=[Problem(text, text, text)],
        parts=[
            Facts(text, [(text, cell)]),
            Table(text, [text], [[cell]], ""),
            Table("", [], [], text),
        ],
        picture=text,
        time=0.0,
    )


def watched(text: str = "hospital-a", looks: list[str] | None = None) -> Watched[str]:
    def look() -> str:
        if looks is not None:
            looks.append(text)
        return text

    return Watched(
        look=look,
        page=shown,
        as_json=lambda seen: {"site": seen},
        samples=lambda seen: [Sample("fedgrpo_x", 1, {"site": seen})],
        kinds=KINDS,
        picture=lambda: b"PNG",
    )


def basic(password: str = WORD, name: str = "me") -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def asked(
    path: str = "/",
    *,
    method: str = "GET",
    host: str | list[str] = "127.0.0.1:8450",
    shows: str | list[str] = f"Bearer {WORD}",
    app: Watched[str] | None = None,
    hosts: tuple[str, ...] = (),
) -> tuple[int, dict[str, str], str]:
    """Status, headers and body of a request to the application."""
    named = [("host", each) for each in ([host] if isinstance(host, str) else host)]
    named += [("authorization", each) for each in ([shows] if isinstance(shows, str) else shows)]
    scope = {
        "type": "http", "http_version": "1.1", "method": method, "path": path,
        "raw_path": path.encode(), "root_path": "", "scheme": "http", "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in named],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8450),
    }  # fmt: skip
    said: list[dict[str, object]] = []

    async def send(message: dict[str, object]) -> None:
        said.append(message)

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    application_ = application(app or watched(), WORD, frozenset(hosts))
    asyncio.run(application_(scope, receive, send))  # type: ignore[arg-type]
    status, headers = said[0]["status"], said[0]["headers"]
    assert isinstance(status, int)
    assert isinstance(headers, list)
    body = b"".join(bytes(each.get("body", b"")) for each in said[1:])  # type: ignore[call-overload]
    return status, {n.decode(): v.decode() for n, v in headers}, body.decode()


@pytest.mark.parametrize("path", PATHS)
def test_who_has_the_password_sees_everything_and_others_nothing(path: str) -> None:
    assert asked(path)[0] == 200
    assert asked(path, shows=basic())[0] == 200
    looks: list[str] = []
    for wrong in (*WRONG, basic("x"), basic("", WORD)):
        status, headers, body = asked(path, shows=wrong, app=watched(looks=looks))
        assert status == 401, wrong
        assert headers["www-authenticate"].startswith("Basic ")
        assert "hospital" not in body
    assert not looks, "nothing is looked at for who may not see it"


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8450", "127.0.0.1.evil.example", "localhost.evil.example:8450",
     "", [], ["localhost", "localhost"], "127.0.0.1:8450:1", "localhost:x", "127.0.0.1@evil",
     "2130706433", "[::1", "fed.example"],
)  # fmt: skip
def test_a_name_that_was_bound_to_this_machine_by_others_is_refused_even_with_the_password(
    host: str | list[str],
) -> None:
    assert asked(host=host)[0] == 421
    assert asked(host=host, shows=[])[0] == 421, "the password is not asked for"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "[::1]:8450", "127.0.0.1"])
def test_a_tunnel_may_have_another_port(host: str) -> None:
    assert asked(host=host)[0] == 200
    assert asked(host="Fed.Example:8450", hosts=("fed.example",))[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE"])
def test_there_is_nothing_to_do(method: str) -> None:
    assert asked(method=method)[0] == 405
    page = render(shown("x"))
    assert not re.search(r"<(script|form|input|button|iframe|object|embed|base)\b|\son\w+=", page)


@pytest.mark.parametrize("path", ["/x", "/docs", "/status.json/", "//metrics", "/../metrics"])
def test_there_is_no_other_path(path: str) -> None:
    assert asked(path)[0] in (404, 307)
    assert asked(path, shows=[])[0] == 401


@pytest.mark.parametrize(
    ("path", "shows"), [("/", WORD), ("/x", WORD), ("/", "no"), ("/picture.png", WORD)]
)
def test_every_answer_forbids_scripts_frames_and_keeping(path: str, shows: str) -> None:
    headers = asked(path, shows=f"Bearer {shows}")[1]
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "script" not in policy
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "access-control-allow-origin" not in headers


@given(st.text(st.characters(codec="utf-8"), max_size=30).map(lambda t: f"<b>&\"'{t}</script>"))
def test_whatever_a_site_or_a_run_says_is_text(text: str) -> None:
    page, plain = render(shown(text)), render(shown("x"))
    assert page.count("<") == plain.count("<"), "no element more than without it"
    assert "<b>" not in page
    assert not re.search(r"=\"[^\"]*<", page)


def test_the_picture_and_the_style_come_from_here() -> None:
    page = asked()[2]
    assert set(re.findall(r'(?:src|href)="([^"]+)"', page)) == {
        "style.css", "picture.png", "status.json", "metrics",
    }  # fmt: skip
    assert 'http-equiv="refresh"' in page
    assert "@import" not in asked("/style.css")[2]
    assert "prefers-color-scheme: dark" in asked("/style.css")[2]


def test_a_look_that_fails_says_why_and_metrics_fail_with_it() -> None:
    def broken() -> str:
        raise RunError("the book cannot be read", cure="restore it")

    app = Watched(broken, shown, lambda _: {}, lambda _: [], KINDS)
    for path in ("/", "/metrics", "/status.json"):
        status, _, body = asked(path, app=app)
        assert status == 503
        assert "the book cannot be read" in body
    assert asked("/picture.png", app=app)[0] == 404


def test_who_reloads_costs_no_more_looks() -> None:
    looks: list[str] = []
    lately = Lately(lambda: looks.append("x"), fresh_s=3600)
    for _ in range(5):
        lately.seen()
    assert looks == ["x"]
    never = Lately(lambda: looks.append("y"), fresh_s=-1)
    never.seen()
    never.seen()
    assert looks == ["x", "y", "y"]


def test_metrics_are_what_prometheus_reads() -> None:
    told = exposition(KINDS, [Sample("fedgrpo_x", 2, {"site": 'a"b\n'})]).decode()
    assert "# TYPE fedgrpo_x gauge" in told
    assert 'fedgrpo_x{site="a\\"b\\n"} 2.0' in told
    assert exposition(KINDS, []) == b""
    with pytest.raises(KeyError):
        exposition(KINDS, [Sample("fedgrpo_y", 1)])
    with pytest.raises(KeyError):
        exposition(KINDS, [Sample("fedgrpo_x", 1)])


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:8450", "http://127.0.0.1:8450/"), ("[::1]:1", "http://[::1]:1/"),
     ("0.0.0.0:8450", "https://0.0.0.0:8450/"), ("fed.example:65535", "https://fed.example:65535/")],
)  # fmt: skip
def test_a_place_is_tls_where_others_reach_it(text: str, address: str) -> None:
    assert Place.of(text).address == address


@pytest.mark.parametrize(
    "text", ["8450", ":8450", "localhost", "::1:8450", "a:99999", "a b:1", "a/b:1"]
)
def test_a_place_that_is_none_is_refused_in_words(text: str) -> None:
    with pytest.raises(SettingsError, match="no HOST:PORT"):
        Place.of(text)


def test_a_port_that_is_taken_is_told_in_words() -> None:
    with Place("127.0.0.1", 0).listen() as taken:
        place = Place("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(RunError, match="cannot listen"):
            place.listen()


def test_the_password_is_drawn_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    first = kept_password(tmp_path)
    assert len(first) >= 43
    assert kept_password(tmp_path) == first
    file = tmp_path / PASSWORD
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o640)
    with pytest.raises(RunError, match="others can read it"):
        kept_password(tmp_path)
    file.unlink()
    file.touch(0o600)
    with pytest.raises(RunError, match="too short"):
        kept_password(tmp_path)


def test_a_page_for_other_machines_is_served_by_tls_1_3_only(tmp_path: Path) -> None:
    _, certificate, key = superlink_files(tmp_path)
    app = application(watched(), WORD, frozenset())
    secured = server(app, (certificate, key), **LOOKED_AT).config.ssl
    assert secured is not None
    assert secured.minimum_version == ssl.TLSVersion.TLSv1_3
    assert server(app, **LOOKED_AT).config.ssl is None
    with pytest.raises(RunError, match="cannot be used"):
        server(app, (certificate, tmp_path / "nowhere.key"), **LOOKED_AT)
