"""Subscribers, deliveries and the doctor on the command line, over real databases and HTTP."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from clarion.catalogue import EventTypeRow
from clarion.cli.listen import judge
from clarion.database import open_engine
from clarion.deliverees import Webhook
from clarion.migrations.history import History, upgrade, write_revision
from clarion.outbox import Delivery, Recording, record
from clarion.signing import new_secret
from clarion.subscriptions import Subscriber
from clarion.testing import FrozenClock, Receiver, Reply, drain
from tests.clarion.cli_runs import SHOP, call
from tests.clarion.plain import add_plain
from tests.clarion.sample import ABOUT_ORDER, OrderEvent

LOOPBACK = "127.0.0.0/8"
NOBODY = "00000000-0000-7000-8000-000000000000"


@pytest.fixture(autouse=True)
def shop(monkeypatch: pytest.MonkeyPatch, database_url: str, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLARION_APP", SHOP)
    monkeypatch.setenv("CLARION_DATABASE_URL", database_url)
    monkeypatch.setenv("CLARION_MIGRATIONS", str(tmp_path / "migrations"))
    monkeypatch.setenv("CLARION_EGRESS_ALLOWED_NETWORKS", LOOPBACK)


def add_webhook(url: str, *more: str) -> dict[str, str]:
    ran = call(
        "subscribers",
        "add",
        "webhook",
        "--name",
        "hook",
        "--url",
        url,
        "--event",
        "shop:order:*",
        *more,
        "--json",
    )
    assert ran.status == 0, ran
    made: dict[str, str] = json.loads(ran.out)
    return made


def test_a_webhook_is_added_shown_switched_and_deleted(engine: Engine) -> None:
    made = add_webhook("https://example.com/hook", "--event", "*:failed", "--scope", "shop/s1")
    assert made["secret"].startswith("whsec_")
    shown = call("subscribers", "show", made["uuid"], "--json")
    found = json.loads(shown.out)
    assert "secret" not in found
    assert made["secret"] not in shown.out
    assert {one["pattern"] for one in found["subscriptions"]} == {"shop:order:*", "*:failed"}
    assert {one["scope"] for one in found["subscriptions"]} == {"shop/s1"}
    assert found["deliveries"] == {}
    begins = made["uuid"][:13]
    assert call("subscribers", "disable", begins).out == "hook is disabled\n"
    with Session(engine) as session:
        assert not session.scalars(select(Subscriber)).one().enabled
    assert call("subscribers", "enable", begins).out == "hook is enabled\n"
    listed = call("subscribers", "list")
    assert "https://example.com/hook" in listed.out
    assert "shop:order:* in shop/s1" in listed.out
    assert made["secret"] not in listed.out
    kept = call("subscribers", "delete", begins, answer="n\n")
    assert kept.status == 1
    deleted = call("subscribers", "delete", begins, "--yes")
    assert deleted.out == "hook is deleted; 0 deliveries were cancelled\n"
    assert "nobody is told" in call("subscribers", "list").out


def test_a_secret_that_was_made_is_printed_once_and_a_given_one_never(engine: Engine) -> None:
    arguments = ("--name", "hook", "--url", "https://example.com/", "--event", "*")
    made = call("subscribers", "add", "webhook", *arguments)
    assert re.search(r"^secret  whsec_\S+  \(it is not shown again\)$", made.out, re.M)
    secret = new_secret()
    given = call("subscribers", "add", "webhook", *arguments, "--secret", secret)
    assert given.status == 0
    assert secret not in given.out


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--url", "ftp://example.com", "https"),
        ("--url", "http://10.0.0.1/", "CLARION_EGRESS_ALLOWED_NETWORKS"),
        ("--event", "shop:oder:*", "no event type matches 'shop:oder:*'"),
        ("--scope", "shop", "is not a scope"),
        ("--scope", "parcel/p1", "can never happen in scope"),
        ("--secret", "whsec_short", "secret"),
        ("--format", "yaml", "standard"),
        ("--content-type", "text/plain", "application/json"),
        ("--timeout", "99", "1 to 30 seconds"),
        ("--name", " ", "1 to 255 printable characters"),
    ],
)
def test_a_webhook_that_could_never_work_is_refused(
    engine: Engine, option: str, value: str, says: str
) -> None:
    given = {"--name": "hook", "--url": "https://example.com/", "--event": "shop:order:*", option: value}
    ran = call("subscribers", "add", "webhook", *(word for pair in given.items() for word in pair))
    assert ran.status == 2, ran
    assert says in ran.all
    with Session(engine) as session:
        assert session.scalars(select(Subscriber)).all() == []


@pytest.mark.parametrize("command", ["show", "enable", "disable", "delete", "ping"])
def test_a_subscriber_that_is_not_there(engine: Engine, command: str) -> None:
    missing = call("subscribers", command, NOBODY)
    assert (missing.status, missing.out) == (1, "")
    assert f"there is no subscriber {NOBODY}" in missing.err
    wrong = call("subscribers", command, "%")
    assert wrong.status == 2
    assert "'%' is not a subscriber's uuid" in wrong.err


def test_a_beginning_that_several_share_is_not_enough(engine: Engine) -> None:
    first, second = add_webhook("https://example.com/1"), add_webhook("https://example.com/2")
    assert first["uuid"][:6] == second["uuid"][:6]  # made within the same minute
    ran = call("subscribers", "show", first["uuid"][:6])
    assert ran.status == 2
    assert "several subscribers' uuids begin with" in ran.err


def test_a_ping_is_signed_and_shows_the_answer(engine: Engine) -> None:
    with Receiver(lambda _: Reply(200, body=b"pong")) as receiver:
        made = add_webhook(receiver.url)
        pinged = call("subscribers", "ping", made["uuid"], "--json")
        assert pinged.status == 0
        found = json.loads(pinged.out)
        assert (found["delivered"], found["status"], found["answer"]) == (True, 200, "pong")
        [request] = receiver.received
        judged = judge(request.headers, request.body, made["secret"], datetime.now(UTC))
        assert judged.line.endswith("verified")
        assert judged.id == found["id"]
        assert json.loads(request.body)["type"] == "ping"
        receiver.reply = lambda _: Reply(500, body=b"no\x1b[2J")
        refused = call("subscribers", "ping", made["uuid"])
    assert refused.status == 1
    assert "status" in refused.out
    assert "500" in refused.out
    assert "\x1b" not in refused.out
    with Session(engine) as session:
        assert session.scalars(select(Delivery)).all() == []


@pytest.fixture
def told(engine: Engine) -> Iterator[str]:
    """Three orders: one is delivered, one is dead, one waits. The subscriber's uuid."""
    clock = FrozenClock(datetime.now(UTC) - timedelta(hours=1))
    with (
        Receiver() as receiver,
        Session(engine, info=Recording(clock).info(), expire_on_commit=False) as session,
    ):
        subscriber = add_plain(session, receiver.url, "shop:order:*", retry_schedule=[0])
        for reply in (Reply(204), Reply(503, body=b"shut \x1b[31m\x07")):
            receiver.reply = lambda _, reply=reply: reply  # type: ignore[misc]
            record(session, OrderEvent("placed", **ABOUT_ORDER))
            session.commit()
            assert drain(engine, clock=clock) == 1
        record(session, OrderEvent("failed", **ABOUT_ORDER))
        session.commit()
        yield str(subscriber.uuid)


def test_deliveries_are_listed_newest_first_by_page(told: str) -> None:
    first = json.loads(call("deliveries", "list", "--limit", "2", "--json").out)
    assert [row["state"] for row in first["items"]] == ["pending", "dead"]
    assert first["next"] == first["items"][-1]["id"]
    second = json.loads(
        call("deliveries", "list", "--limit", "2", "--before", str(first["next"]), "--json").out
    )
    assert [row["state"] for row in second["items"]] == ["delivered"]
    assert second["next"] is None
    assert second["items"][0]["subscriber"] == "plain"
    assert second["items"][0]["event"] == "shop:order:placed"
    people = call("deliveries", "list", "--limit", "2")
    assert f"There are more: --before {first['next']}" in people.out
    assert "shop:order:failed" in people.out


def test_deliveries_are_filtered(told: str) -> None:
    def states(*arguments: str) -> list[str]:
        found = json.loads(call("deliveries", "list", *arguments, "--json").out)
        return [row["state"] for row in found["items"]]

    assert states("--state", "dead") == ["dead"]
    assert states("--event", "shop:order:failed") == ["pending"]
    assert states("--subscriber", told) == ["pending", "dead", "delivered"]
    assert states("--state", "cancelled") == []
    assert "there are no such deliveries" in call("deliveries", "list", "--state", "cancelled").out
    wrong = call("deliveries", "list", "--state", "lost")
    assert wrong.status == 2
    assert "pending" in wrong.all
    assert call("deliveries", "list", "--subscriber", NOBODY).status == 1


def test_a_delivery_shows_its_attempts_and_what_was_answered(told: str) -> None:
    [dead] = json.loads(call("deliveries", "list", "--state", "dead", "--json").out)["items"]
    shown = json.loads(call("deliveries", "show", str(dead["id"]), "--json").out)
    [attempt] = shown["tried"]
    assert (attempt["outcome"], attempt["status"], attempt["body"]) == ("retry", 503, "shut \x1b[31m\x07")
    assert shown["payload"]["shop"]["order"]["number"] == 7
    assert shown["scope"] == "shop/s1/order/o1"
    people = call("deliveries", "show", str(dead["id"]))
    assert "503" in people.out
    assert not {"\x1b", "\x07"} & set(people.out)
    assert '"number": 7' in people.out
    assert call("deliveries", "show", str(2**63)).status == 2
    assert call("deliveries", "retry", str(2**63)).status == 2
    assert call("deliveries", "list", "--before", str(2**63)).status == 2
    missing = call("deliveries", "show", "99999999")
    assert (missing.status, missing.err) == (1, "clarion: there is no delivery 99999999\n")


def test_what_is_finished_is_due_again_when_asked_for(engine: Engine, told: str) -> None:
    rows = {row["state"]: row["id"] for row in json.loads(call("deliveries", "list", "--json").out)["items"]}
    ran = call("deliveries", "retry", str(rows["delivered"]), str(rows["pending"]), "99999999")
    assert ran.status == 1
    assert ran.out == "1 deliveries are due again\n"
    assert "is still pending" in ran.err
    assert "there is no delivery 99999999" in ran.err
    dead = call("deliveries", "retry", "--dead", "--subscriber", told)
    assert (dead.status, dead.out) == (0, "1 deliveries are due again\n")
    assert call("deliveries", "retry", "--dead").out == "0 deliveries are due again\n"
    with Session(engine) as session:
        assert set(session.scalars(select(Delivery.state))) == {"pending"}
    with Receiver() as receiver, Session(engine) as session:
        session.scalars(select(Subscriber)).one().target = receiver.url  # type: ignore[attr-defined]
        session.commit()
        assert drain(engine, clock=lambda: datetime.now(UTC)) == 3


def test_a_retry_says_which(engine: Engine) -> None:
    for arguments in ([], ["1", "--dead"], ["1", "--subscriber", NOBODY]):
        ran = call("deliveries", "retry", *arguments)
        assert ran.status == 2
        assert "give deliveries' numbers, or --dead" in ran.err


def findings() -> tuple[int, dict[str, tuple[str, str]]]:
    ran = call("doctor", "--json")
    return ran.status, {one["what"]: (one["health"], one["said"]) for one in json.loads(ran.out)}


@pytest.fixture
def migrated(database_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """The shop's database as its migrations make it."""
    if not database_url.startswith("sqlite"):
        database_url = request.getfixturevalue("empty_postgres_url")
        request.getfixturevalue("monkeypatch").setenv("CLARION_DATABASE_URL", database_url)
    history = History(tuple(SHOP.split(",")), tmp_path / "migrations")
    write_revision(history, "first")
    engine = open_engine(database_url)
    upgrade(history, engine)
    yield engine
    engine.dispose()


def test_the_doctor_finds_nothing_where_all_is_well(migrated: Engine) -> None:
    status, found = findings()
    assert status == 0, found
    assert found["application"] == ("ok", f"{SHOP.replace(',', ', ')} declares 7 event types")
    assert found["schema"] == ("ok", "is at the newest revision")
    assert found["due"] == ("ok", "nothing waits to be delivered")
    assert found["egress"] == ("note", "webhooks may go to public addresses, and 127.0.0.0/8")
    assert found["telemetry"][1].startswith("is off:")
    assert "relay" in found["extras"][1]
    assert call("doctor").status == 0


def test_the_doctor_finds_what_is_overdue_and_given_up(migrated: Engine) -> None:
    with Session(
        migrated, info=Recording(lambda: datetime.now(UTC) - timedelta(minutes=5)).info()
    ) as session:
        add_plain(session, "http://127.0.0.1:1/", "*")
        record(session, OrderEvent("placed", **ABOUT_ORDER), OrderEvent("failed", **ABOUT_ORDER))
        session.commit()
        first = session.scalars(select(Delivery).order_by(Delivery.id)).first()
        assert first is not None
        first.state, first.finished_at = "dead", datetime.now(UTC)
        session.commit()
    status, found = findings()
    assert status == 1
    assert found["due"][0] == "fault"
    assert re.fullmatch(r"something was due 3\d\d s ago: does a relay run\?", found["due"][1])
    assert found["dead"] == ("note", "1 deliveries were given up: clarion deliveries list --state dead")


def test_the_doctor_finds_rows_and_revisions_that_are_missing(migrated: Engine, tmp_path: Path) -> None:
    with Session(migrated) as session, session.begin():
        session.delete(session.get_one(EventTypeRow, "shop:closed"))
    status, found = findings()
    assert status == 1
    assert found["schema"] == ("fault", "event types without a row: shop:closed")
    for path in (tmp_path / "migrations" / "versions").glob("r*.py"):
        path.unlink()
    status, found = findings()
    assert status == 1
    assert found["revisions"][1].startswith("event types without a row: shop:opened, ")


def test_the_doctor_says_what_is_wrong_with_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLARION_LOG_FORMAT", "xml")
    status, found = findings()
    assert status == 1
    assert found["settings"][0] == "fault"
    assert "CLARION_LOG_FORMAT" in found["settings"][1]


def test_webhooks_own_kind_is_what_is_added(engine: Engine) -> None:
    add_webhook("https://example.com/", "--format", "orchest", "--secret", "mine", "--no-verify-tls")
    with Session(engine) as session:
        webhook = session.scalars(select(Webhook)).one()
        assert (webhook.format, webhook.secret, webhook.verify_ssl) == ("orchest", "mine", False)
