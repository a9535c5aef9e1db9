"""Who is answered: our own hosts, our own pages, and from elsewhere only who has the token."""

from datetime import UTC, datetime

import pytest
from starlette.testclient import TestClient

from orchest.api.security import COOKIE, SESSION, Access, hash_of, hostname, is_loopback
from orchest.app import create_app
from orchest.models import Project
from orchest.platform import Platform
from tests.orchest.api.calling import BASE, count, refused

OURS = [
    "127.0.0.1",
    "127.0.0.1:8470",
    "localhost",
    "LOCALHOST:1",
    "localhost.",
    "[::1]",
    "[::1]:8470",
    "127.1.2.3",
]
FOREIGN = [
    "evil.example",
    "evil.example:8470",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "user@localhost",
    "localhost@evil.example",
    "10.0.0.1",
    "0.0.0.0",
    "localhost/",
    "localhost#",
    "localhost:x",
    "",
    "[::1",
    "127.0.0.1,evil.example",
]


@pytest.mark.parametrize("host", OURS)
def test_our_own_hosts(client: TestClient, host: str) -> None:
    assert client.get("/healthz", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", FOREIGN)
@pytest.mark.parametrize("path", ["/healthz", "/api/projects"])
def test_foreign_hosts_get_nothing(client: TestClient, host: str, path: str) -> None:
    refused(client.get(path, headers={"host": host}), 403)


def test_hosts_can_be_allowed(platform: Platform) -> None:
    app = create_app(platform, Access(hosts=frozenset({"orchest.example"})), workers=False)
    with TestClient(app, base_url=BASE) as client:
        assert client.get("/healthz", headers={"host": "Orchest.example:443"}).status_code == 200
        refused(client.get("/healthz", headers={"host": "evil.example"}), 403)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "http://localhost:8470"},
        {"origin": "file://"},
        {"origin": "http://[bad"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "origin": BASE},
    ],
)
def test_writes_of_foreign_pages(client: TestClient, platform: Platform, headers: dict[str, str]) -> None:
    refused(client.post("/api/projects", json={"name": "x"}, headers=headers), 403)
    refused(client.post("/deliveries/1/redeliver", headers=headers), 403)
    refused(client.post("/telemetry/enable", headers=headers), 403)
    refused(client.delete("/api/projects/x", headers=headers), 403)
    assert count(platform, Project) == 0


@pytest.mark.parametrize(
    "headers",
    [{}, {"origin": BASE}, {"sec-fetch-site": "same-origin", "origin": BASE}, {"sec-fetch-site": "none"}],
)
def test_writes_of_our_own_pages_and_of_programs(client: TestClient, headers: dict[str, str]) -> None:
    assert client.post("/api/projects", json={"name": "x"}, headers=headers).status_code == 201


def test_a_foreign_page_may_be_linked_from(client: TestClient) -> None:
    """Following a link is a read: the browser shows it to the user, not to the page."""
    assert client.get("/", headers={"sec-fetch-site": "cross-site"}).status_code == 200


TOKEN = "let-me-in"
NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def guarded(platform: Platform) -> TestClient:
    access = Access(token_hash=hash_of(TOKEN), public=True)
    app = create_app(platform, access, workers=False)
    app.state.running = True
    return TestClient(app, base_url="http://192.0.2.7:8470", follow_redirects=False)


@pytest.mark.parametrize(
    "path", ["/api/projects", "/", "/events", "/openapi.json", "/nothing", "/static/live.js"]
)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": TOKEN},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": "Bearer "},
        {"cookie": f"{COOKIE}=wrong"},
    ],
)
def test_without_the_token_nothing(guarded: TestClient, path: str, headers: dict[str, str]) -> None:
    answer = guarded.get(path, headers=headers)
    refused(answer, 401)
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_with_the_token(guarded: TestClient) -> None:
    headers = {"authorization": f"Bearer {TOKEN}"}
    assert guarded.get("/api/projects", headers=headers).status_code == 200
    assert guarded.post("/api/projects", json={"name": "x"}, headers=headers).status_code == 201


def test_where_it_cannot_be_told_who_calls_the_log_says_so(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("orchest.api.security.can_tell", lambda: False)
    with TestClient(create_app(platform, workers=False), base_url=BASE) as client:
        assert client.get("/api/projects").status_code == 200
    assert "it cannot be told who calls" in caplog.text


def test_a_token_on_loopback_opens_the_page_that_asks_for_it(platform: Platform) -> None:
    """And no other word does, also where there is no token at all."""
    for token_hash, statuses in ((None, (403, 403)), (hash_of(TOKEN), (403, 303))):
        app = create_app(platform, Access(token_hash=token_hash), workers=False)
        with TestClient(app, base_url=BASE, follow_redirects=False) as client:
            answered = [client.post("/login", data={"token": said}).status_code for said in ("x", TOKEN)]
        assert tuple(answered) == statuses


def test_health_needs_no_token(guarded: TestClient) -> None:
    assert guarded.get("/healthz").status_code == 200


def test_logging_in(guarded: TestClient) -> None:
    to_login = guarded.get("/", headers={"accept": "text/html"})
    assert (to_login.status_code, to_login.headers["location"]) == (303, "/login")
    assert guarded.get("/login").status_code == 200
    wrong = guarded.post("/login", data={"token": "wrong"})
    assert wrong.status_code == 403
    assert "set-cookie" not in wrong.headers
    right = guarded.post("/login", data={"token": f" {TOKEN} "})
    assert (right.status_code, right.headers["location"]) == (303, "/")
    cookie = right.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert guarded.get("/").status_code == 200  # the client keeps the cookie
    refused(guarded.post("/login", data={"token": TOKEN}, headers={"origin": "http://evil.example"}), 403)


def test_every_answer_is_hardened(client: TestClient) -> None:
    for path in ("/", "/api/projects", "/nothing", "/static/site.css"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["x-frame-options"] == "DENY", path
    assert "default-src 'none'" in client.get("/").headers["content-security-policy"]


@pytest.mark.parametrize(
    ("host", "name"),
    [("A.b:1", "a.b"), ("[::1]:2", "::1"), ("a.", "a"), ("a b", None), ("a?b", None), ("a:x", None)],
)
def test_hostname(host: str, name: str | None) -> None:
    assert hostname(host) == name


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("host", False),
    ],
)
def test_is_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_behind_a_proxy_each_login_has_a_rate_of_its_own(platform: Platform) -> None:
    """All of them call from one address, with one access token."""
    platform.analytics.clock = lambda: NOW
    app = create_app(platform, Access(frozenset({"testserver"}), hash_of(TOKEN), public=True), workers=False)
    event = {"event": "view:loaded", "properties": {"name": "projects"}}

    def taken(client: TestClient, **headers: str) -> int:
        """How many requests are taken until one is refused for being too many."""
        for number in range(1000):
            status = client.post("/analytics", json=event, headers=headers).status_code
            if status == 429:
                return number
            assert status == 200
        raise AssertionError("never refused")

    with TestClient(app) as ada, TestClient(app) as grace, TestClient(app) as program:
        for client in (ada, grace):
            assert client.post("/login", data={"token": TOKEN}, follow_redirects=False).status_code == 303
        bearer = {"authorization": f"Bearer {TOKEN}"}
        assert [taken(ada), taken(grace), taken(program, **bearer)] == [100, 100, 100]
        forged = ("", "x", "x.y", f"x.{hash_of('x')}", "é.é", ada.cookies[SESSION] + "0")
        for cookie in forged:  # none of them is another login
            sent = {**bearer, "cookie": f"{SESSION}={cookie}".encode("latin-1")}
            assert program.post("/analytics", json=event, headers=sent).status_code == 429


def test_a_login_is_one_of_ours_under_the_same_token() -> None:
    access = Access(token_hash=hash_of(TOKEN))
    made = access.new_session()
    assert access.session(made) == made.partition(".")[0]
    assert access.session(made) != access.session(access.new_session())
    assert Access(token_hash=hash_of("another")).session(made) is None
    assert Access().session(Access().new_session()) is None
