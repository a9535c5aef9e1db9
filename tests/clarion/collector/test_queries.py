"""The query API: open to a token only, exact about bad questions, and the limits of a whole collector."""

import csv
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from clarion.collector.access import AccessToken
from clarion.collector.app import App, create_app
from clarion.collector.keys import WriteKey
from clarion.collector.service import Settings
from tests.clarion.collector.sample import CREATED, FAILED, KEY, PROJECT, SCHEMA, TOKEN, batch, event
from tests.clarion.collector.test_journal import files_up_to

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PATHS = [
    "projects",
    "schema",
    "events",
    f"events/{CREATED}/properties",
    "series",
    "counters",
    "installations",
    "versions",
    "active",
    "adoption",
    "platforms",
    "operation",
    "libraries",
    "views",
    f"funnel?step={CREATED}&step={FAILED}",
    "retention",
    "quarantine",
    "verdict",
    "audit",
    f"events/{CREATED}/recent",
]
LISTS = [
    path for path in PATHS if path not in ("projects", "schema", "verdict", "active", "operation", "views")
]


class Now:
    """A wall clock moved by hand."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


class Running:
    """An app in this process and a client of it."""

    def __init__(self, app: App, http: httpx.AsyncClient, clock: Now) -> None:
        self.app = app
        self.http = http
        self.clock = clock

    async def send(self, *events: dict[str, Any]) -> httpx.Response:
        return await self.http.post("/batch/", json=batch(*events))

    async def ask(self, path: str) -> httpx.Response:
        import asyncio

        await asyncio.to_thread(self.app.collector.flush)
        mark = "&" if "?" in path else "?"
        named = "" if "project=" in path else f"{mark}project={PROJECT}"
        return await self.http.get(f"/api/{path}{named}", headers=BEARER)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        tmp_path / "data",
        SCHEMA,
        (WriteKey.of(PROJECT, KEY),),
        (AccessToken.of(TOKEN, "ada"),),
        segment_seconds=60,
    )


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Running]:
    clock = Now()
    app = create_app(settings, clock=clock)
    async with app.collector:
        transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://collector") as http:
            yield Running(app, http, clock)


@pytest.fixture
async def collector(settings: Settings) -> AsyncIterator[Running]:
    async with running(settings) as made:
        yield made


@pytest.mark.parametrize("path", PATHS)
async def test_every_question_needs_a_token_and_answers_json(collector: Running, path: str) -> None:
    await collector.send(event(), event(FAILED), event("no:such"))
    closed = await collector.http.get(f"/api/{path}")
    assert (closed.status_code, closed.headers["content-type"]) == (401, "application/problem+json")
    assert closed.headers["www-authenticate"] == "Bearer"
    wrong = await collector.http.get(f"/api/{path}", headers={"Authorization": "Bearer wrong"})
    assert wrong.status_code == 401
    answer = await collector.ask(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json()


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("events/no:such/properties", 404, "schema"),
        ("series?period=hour", 422, "not valid"),
        ("series?since=2026-11-01T00:00:00", 422, "not valid"),
        ("series?since=1795168805", 422, "not valid"),
        ("series?project=nobodys", 404, "project"),
        ("series?since=2026-11-02T00:00:00Z&until=2026-11-01T00:00:00Z", 422, "before"),
        ("funnel?step=project:created", 422, "not valid"),
        ("funnel?step=no:such&step=project:created", 422, "schema"),
        ("funnel?step=a&step=b&window_days=0", 422, "not valid"),
        ("nowhere", 404, "Not Found"),
    ],
)
async def test_bad_questions_are_problem_documents(
    collector: Running, path: str, status: int, says: str
) -> None:
    answer = await collector.ask(path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json()["status"] == status
    assert says in answer.json()["detail"]


async def test_a_bad_body_is_described_without_being_quoted(collector: Running) -> None:
    secret = {"project": PROJECT, "installation": ["ada@example.org"]}
    answer = await collector.http.post("/api/installations/erase", json=secret, headers=BEARER)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["where"] == "body.installation"
    assert "ada@" not in answer.text


async def test_no_tokens_keeps_the_api_shut(settings: Settings) -> None:
    async with running(replace(settings, access=())) as collector:
        answer = await collector.http.get("/api/projects", headers={"Authorization": "Bearer "})
        assert answer.status_code == 401


async def test_the_overview_names_what_was_never_seen(collector: Running) -> None:
    await collector.send(event())
    answer = (await collector.ask("events")).json()
    assert [row["event"] for row in answer["events"]] == [CREATED]
    assert answer["never_seen"] == [FAILED]


async def test_nothing_seen_is_no_green_verdict(collector: Running) -> None:
    assert (await collector.ask("verdict")).json()["verdict"] == "unseen"
    await collector.send(event())
    assert (await collector.ask("verdict")).json()["verdict"] == "green"
    await collector.send(event("no:such"))
    assert (await collector.ask("verdict")).json()["verdict"] == "amber"


async def test_the_verdict_tells_what_arrived_and_what_was_refused(collector: Running) -> None:
    await collector.send(event(), event(FAILED, trigger="nonsense"))
    answer = (await collector.ask("verdict")).json()
    assert {row["event"]: row["verdict"] for row in answer["events"]} == {CREATED: "green", FAILED: "amber"}
    assert answer["schema_hash"] == SCHEMA.hash


async def test_too_many_events_wait(settings: Settings) -> None:
    async with running(replace(settings, events_per_second=1.0, burst=2.0)) as collector:
        assert (await collector.send(event(), event())).status_code == 200
        answer = await collector.send(event())
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1


async def test_a_full_disk_is_503_and_never_200(collector: Running) -> None:
    assert (await collector.send(event())).status_code == 200
    with files_up_to(2048):
        answer = await collector.send(*(event() for _ in range(20)))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert (await collector.http.get("/readyz")).status_code == 503
    assert (await collector.send(event())).status_code == 200
    assert (await collector.http.get("/readyz")).status_code == 200
    assert (await collector.ask("events")).json()["events"][0]["events"] == 2


async def test_a_store_that_is_too_far_behind_is_503(
    collector: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector.app.collector.loader, "_limit", -1)
    assert (await collector.send(event())).status_code == 503


async def test_a_revoked_key_is_401(settings: Settings) -> None:
    revoked = replace(WriteKey.of(PROJECT, KEY), revoked=True)
    async with running(replace(settings, write_keys=(revoked,))) as collector:
        assert (await collector.send(event())).status_code == 401


async def test_retention_forgets_by_the_clock(collector: Running) -> None:
    await collector.send(event())
    await collector.ask("events")
    collector.clock.now = NOW + timedelta(days=399)
    assert collector.app.collector.expire() == 0
    collector.clock.now = NOW + timedelta(days=401)
    assert collector.app.collector.expire() == 1


async def test_export_and_erase_take_the_sent_id_or_the_shown_one(collector: Running) -> None:
    await collector.send(event(CREATED, "mine"), event(FAILED, "mine"), event(CREATED, "other"))
    asked = {"project": PROJECT, "installation": "mine"}
    found = (await collector.http.post("/api/installations/export", json=asked, headers=BEARER)).json()[
        "events"
    ]
    assert len(found) == 2
    shown = {"project": PROJECT, "installation": found[0]["installation"]}
    erased = await collector.http.post("/api/installations/erase", json=shown, headers=BEARER)
    assert erased.json() == {"events": 2, "shapes": 0, "left": 0}
    again = await collector.http.post("/api/installations/export", json=asked, headers=BEARER)
    assert again.json() == {"events": []}


async def test_arrivals_answer_by_the_ids_a_sender_knows(collector: Running) -> None:
    one = event()
    await collector.send(one)
    await collector.ask("projects")
    asked = {"project": PROJECT, "ids": [one["uuid"], "never-sent"]}
    answer = await collector.http.post("/api/arrivals", json=asked, headers=BEARER)
    arrived = answer.json()["arrived"]
    assert list(arrived) == [one["uuid"]]
    assert arrived[one["uuid"]]["anonymous"] is True


@pytest.mark.parametrize("path", LISTS)
async def test_every_list_is_a_csv_file_too(collector: Running, path: str) -> None:
    await collector.send(*(event(CREATED, f"i{n}") for n in range(6)), event(FAILED), event("no:such"))
    await collector.ask(f"events/{CREATED}/recent")
    found = (await collector.ask(path)).json()
    rows = next(value for value in found.values() if isinstance(value, list))
    answer = await collector.ask(f"{path}{'&' if '?' in path else '?'}format=csv")
    assert answer.headers["content-type"].startswith("text/csv")
    assert "attachment" in answer.headers["content-disposition"]
    header, *lines = csv.reader(io.StringIO(answer.text, newline=""))
    assert len(lines) >= len(rows) > 0
    assert all(len(line) == len(header) for line in lines)
    # every column holds something somewhere, or is a count that is not said of few
    empty = {name for place, name in enumerate(header) if not any(line[place] for line in lines)}
    assert empty <= {
        "ended_at",
        "installation",
        "version",
        "events",
        "library_version",
        "size",
        "path",
        "type",
    } | {"installations", "new", "returning", "churned", "returned", "returned_place", "label", "share"} | {
        "detail",
        "half",
        "days_to_half",
        "declare",
    }


async def test_an_unknown_format_is_refused(collector: Running) -> None:
    assert (await collector.ask("series?format=xml")).status_code == 422


async def test_a_file_says_no_more_of_few_installations_than_the_answer(collector: Running) -> None:
    await collector.send(*(event(FAILED, f"i{n}", step_count=n) for n in range(4)))
    text = (await collector.ask(f"events/{FAILED}/properties?format=csv")).text
    assert "event_properties.step_count,4,4,other,,\r\n" in text
    assert (await collector.ask("installations?format=csv")).text.endswith("2026-11-20,,,,\r\n")


async def test_every_look_at_raw_events_is_written_down(collector: Running) -> None:
    await collector.send(event(CREATED, "mine"), event(FAILED, "mine"), event(CREATED, "other"))
    asked = {"project": PROJECT, "installation": "mine"}
    for form in ("json", "csv"):
        answer = await collector.http.post(
            f"/api/installations/export?format={form}", json=asked, headers=BEARER
        )
        assert answer.status_code == 200
    stored = collector.app.collector.pseudonyms.installation(PROJECT, "mine")
    assert answer.text.count(stored) == 2
    await collector.ask(f"events/{CREATED}/recent?most=1")
    looks = (await collector.ask("audit")).json()["looks"]
    shown = ("who", "what", "project", "event", "installation", "version", "events", "at")
    at = "2026-11-20T12:00:00.000Z"
    assert [tuple(look[name] for name in shown) for look in looks] == [
        ("ada", "recent", PROJECT, CREATED, "", "", 1, at),
        ("ada", "export", PROJECT, "", stored, "", 2, at),
        ("ada", "export", PROJECT, "", stored, "", 2, at),
    ]
    await collector.http.post("/api/installations/erase", json=asked, headers=BEARER)
    assert stored not in (await collector.ask("audit")).text


async def test_questions_without_raw_events_are_not_looks(collector: Running) -> None:
    await collector.send(event())
    for path in [path for path in PATHS if "recent" not in path]:
        await collector.ask(path)
    assert (await collector.ask("audit")).json() == {"looks": []}


async def test_a_look_that_cannot_be_written_down_shows_nothing(collector: Running) -> None:
    await collector.send(event())
    for file in collector.app.collector.settings.data.glob("audit.db*"):
        file.unlink()
    asked = {"project": PROJECT, "installation": "installation-1"}
    refused = [
        await collector.http.post("/api/installations/export", json=asked, headers=BEARER),
        await collector.ask(f"events/{CREATED}/recent"),
        await collector.ask("live"),
    ]
    assert [answer.status_code for answer in refused] == [503, 503, 503]
    assert all("properties" not in answer.text for answer in refused)


async def test_looks_are_kept_as_long_as_events(collector: Running) -> None:
    await collector.ask(f"events/{CREATED}/recent")
    collector.clock.now = NOW + timedelta(days=401)
    collector.app.collector.expire()
    assert (await collector.ask("audit")).json() == {"looks": []}


async def test_two_collectors_give_one_installation_two_names(tmp_path: Path, settings: Settings) -> None:
    names = []
    for place in ("one", "two"):
        async with running(replace(settings, data=tmp_path / place)) as collector:
            await collector.send(event(CREATED, "same"))
            asked = {"project": PROJECT, "installation": "same"}
            answer = await collector.http.post("/api/installations/export", json=asked, headers=BEARER)
            names.append(answer.json()["events"][0]["installation"])
    assert names[0] != names[1]


async def test_the_openapi_document_covers_the_api(collector: Running) -> None:
    document = (await collector.http.get("/api/openapi.json", headers=BEARER)).json()
    listed = {path.removeprefix("/api/").replace("{event}", CREATED) for path in document["paths"]}
    asked = {path.partition("?")[0] for path in PATHS}
    assert asked <= listed
    assert json.dumps(document)


async def post(collector: Running, path: str, body: dict[str, Any], method: str = "POST") -> httpx.Response:
    return await collector.http.request(method, f"/api/{path}", json=body, headers=BEARER)


async def test_a_refused_shape_is_ignored_reopened_and_purged_on_record(collector: Running) -> None:
    await collector.send(event(FAILED, trigger="nonsense"), event("no:such"))
    shapes = (await collector.ask("quarantine")).json()["shapes"]
    mine = next(row for row in shapes if row["event"] == FAILED)
    assert "event_properties.trigger" in mine["declare"]
    key = {name: mine[name] for name in ("event", "path", "problem", "type", "size", "library")}
    asked = {"project": PROJECT, **key}

    ignored = await post(collector, "quarantine/resolve", asked | {"how": "ignore"})
    assert (ignored.status_code, ignored.json()) == (200, {"how": "ignore", "purged": 0})
    await collector.send(event(FAILED, trigger="nonsense"))
    assert FAILED not in {row["event"] for row in (await collector.ask("quarantine")).json()["shapes"]}
    [row] = (await collector.ask("quarantine?ignored=true")).json()["shapes"]
    assert (row["event"], row["count"]) == (FAILED, 2)
    text = (await collector.ask("quarantine?ignored=true&format=csv")).text
    assert FAILED in text
    await post(collector, "quarantine/resolve", asked | {"how": "reopen"})
    assert (await collector.ask("quarantine?ignored=true")).json() == {"shapes": []}

    purged = await post(collector, "quarantine/resolve", asked | {"how": "purge"})
    assert purged.json() == {"how": "purge", "purged": 2}
    again = await post(collector, "quarantine/resolve", asked | {"how": "purge"})
    assert (again.status_code, again.headers["content-type"]) == (404, "application/problem+json")
    looks = (await collector.ask("audit")).json()["looks"]
    assert [(look["who"], look["what"], look["event"], look["events"]) for look in looks] == [
        ("ada", "purge", FAILED, 2),
        ("ada", "reopen", FAILED, 0),
        ("ada", "ignore", FAILED, 0),
    ]
    assert looks[0]["detail"] == "event_properties.trigger, value not allowed, string, 6-10, direct"


@pytest.mark.parametrize(
    ("change", "status"),
    [({"how": "delete"}, 422), ({"event": 7}, 422), ({"more": ""}, 422), ({"event": "never:seen"}, 404)],
)
async def test_only_a_refused_shape_is_resolved(
    collector: Running, change: dict[str, Any], status: int
) -> None:
    key = dict.fromkeys(("event", "path", "problem", "type", "size", "library"), "x")
    answer = await post(
        collector, "quarantine/resolve", {"project": PROJECT, **key, "how": "ignore"} | change
    )
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


async def test_nothing_is_resolved_that_cannot_be_written_down(collector: Running) -> None:
    await collector.send(event(FAILED, trigger="nonsense"))
    [row] = (await collector.ask("quarantine")).json()["shapes"]
    key = {name: row[name] for name in ("event", "path", "problem", "type", "size", "library")}
    for file in collector.app.collector.settings.data.glob("audit.db*"):
        file.unlink()
    answer = await post(collector, "quarantine/resolve", {"project": PROJECT, **key, "how": "purge"})
    assert answer.status_code == 503
    assert len((await collector.ask("quarantine")).json()["shapes"]) == 1


async def test_views_are_put_listed_and_deleted(collector: Running) -> None:
    page = {"page": "/versions", "query": f"project={PROJECT}&days=90"}
    made = await post(collector, "views/our versions", page, "PUT")
    assert (made.status_code, made.json()) == (201, {"name": "our versions", **page})
    assert (await post(collector, "views/our versions", page, "PUT")).status_code == 200
    assert (await collector.ask("views")).json() == {"views": [made.json()]}
    assert (await post(collector, "views/x", {"page": "//x", "query": ""}, "PUT")).status_code == 422
    assert (await post(collector, "views/our versions", {}, "DELETE")).status_code == 204
    assert (await post(collector, "views/our versions", {}, "DELETE")).status_code == 404


async def test_a_saved_view_names_an_installation_only_as_it_is_shown(collector: Running) -> None:
    query = f"project={PROJECT}&installation=sent-by-itself"
    saved = (await post(collector, "views/mine", {"page": "/live", "query": query}, "PUT")).json()
    stored = collector.app.collector.pseudonyms.installation(PROJECT, "sent-by-itself")
    assert saved["query"] == f"project={PROJECT}&installation={stored}"
    await post(collector, "installations/erase", {"project": PROJECT, "installation": "sent-by-itself"})
    assert (await collector.ask("views")).json() == {"views": []}


async def test_sql_is_for_administrators_and_every_statement_is_on_record(settings: Settings) -> None:
    async with running(replace(settings, administrators=frozenset({"ada"}))) as collector:
        await collector.send(event(CREATED, "mine"), event(FAILED, "mine"))
        stored = collector.app.collector.pseudonyms.installation(PROJECT, "mine")
        text = (
            f"SELECT event, count(*) AS n FROM events WHERE installation = '{stored}' GROUP BY 1 ORDER BY 1"
        )
        answer = await post(collector, "sql", {"project": PROJECT, "sql": text})
        assert answer.json() == {
            "columns": ["event", "n"],
            "rows": [[CREATED, 1], [FAILED, 1]],
            "more": False,
        }
        csv_file = await post(collector, "sql?format=csv", {"project": PROJECT, "sql": text})
        assert csv_file.text == f"event,n\r\n{CREATED},1\r\n{FAILED},1\r\n"
        old = {
            "project": PROJECT,
            "sql": text,
            "until": "2026-01-01T00:00:00Z",
            "since": "2025-01-01T00:00:00Z",
        }
        assert (await post(collector, "sql", old)).json()["rows"] == []
        refused = await post(collector, "sql", {"project": PROJECT, "sql": "DROP TABLE events"})
        assert (refused.status_code, "only one SELECT" in refused.json()["detail"]) == (422, True)
        unknown = await post(collector, "sql", {"project": "nobodys", "sql": text})
        assert unknown.status_code == 404
        looks = (await collector.ask("audit")).json()["looks"]
        assert [(look["who"], look["what"], look["detail"], look["events"]) for look in looks] == [
            ("ada", "sql", "DROP TABLE events", 0),
            ("ada", "sql", text, 0),
            ("ada", "sql", text, 2),
            ("ada", "sql", text, 2),
        ]
        await post(collector, "installations/erase", {"project": PROJECT, "installation": "mine"})
        log = (await collector.ask("audit")).json()["looks"]
        assert stored not in json.dumps(log)
        assert [look["detail"] for look in log] == ["", "DROP TABLE events", "erased", "erased", "erased"]


async def test_nobody_is_an_administrator_unless_it_is_said(collector: Running) -> None:
    answer = await post(collector, "sql", {"project": PROJECT, "sql": "SELECT 1"})
    assert (answer.status_code, "administrator" in answer.json()["detail"]) == (403, True)


async def test_alerts_name_what_never_came_and_what_went_silent(collector: Running) -> None:
    await collector.send(event())
    answer = (await collector.ask("events")).json()
    assert (answer["never_seen"], answer["gone_silent"]) == ([FAILED], [])
    collector.clock.now = NOW + timedelta(days=8)
    answer = (await collector.ask("events")).json()
    assert (answer["never_seen"], answer["gone_silent"]) == ([FAILED], [CREATED])


async def test_the_schema_says_who_answers_and_what_each_property_is(collector: Running) -> None:
    about = (await collector.ask("schema")).json()["events"][FAILED]
    assert (about["owner"], about["since"], about["expires"]) == ("jobs team", "1.0", "2027-06-01")
    trigger = next(row for row in about["properties"] if row["property"] == "event_properties.trigger")
    assert trigger == {
        "property": "event_properties.trigger",
        "kind": "one of a list",
        "allowed": "cron, manual, other",
        "description": "",
        "purpose": "Which triggers are used.",
    }


async def test_the_last_events_stand_beside_what_they_are_declared_as(collector: Running) -> None:
    await collector.send(event(FAILED))
    [found] = (await collector.ask(f"events/{FAILED}/recent")).json()["events"]
    values = {row["path"]: row for row in found["values"]}
    assert values["event_properties.trigger"]["kind"] == "one of a list"
    assert not any(row["problem"] for row in found["values"])


async def test_operation_tells_what_comes_in_again_and_by_which_clock(collector: Running) -> None:
    late = batch(event()) | {"sent_at": (NOW - timedelta(minutes=10)).isoformat()}
    await collector.http.post("/batch/", json=late, headers={"PostHog-Attempt": "2"})
    await collector.http.post("/batch/?retry_count=3", json=batch(event()))
    message = {"writeKey": KEY, "event": CREATED, "anonymousId": "i", "properties": {}}
    await collector.http.post("/v1/track", json=message, headers={"X-Retry-Count": "1"})
    await collector.http.post("/batch/", json=batch(event()), headers={"PostHog-Attempt": "1"})
    answer = (await collector.ask("operation")).json()
    retried = {row["label"]: row["count"] for row in answer["counters"] if row["name"] == "retried"}
    assert retried == {"v0": 2, "segment": 1}
    clocks = {row["clock"]: row["requests"] for row in answer["clocks"] if row["requests"]}
    assert clocks == {"behind by 1 min to 1 h": 1}
    assert answer["events_per_second"] > 0
    assert answer["ready"] is True
    assert answer["disk_free_bytes"] > 0
    assert {"format": "v0", "status": 200, "requests": 3} in answer["answers"]
