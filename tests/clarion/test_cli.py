"""The command line: help, errors, and what the application declares."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from clarion import __version__
from clarion.cli.documents import pascal, schemas, typescript
from clarion.collector.schema import AllowList
from clarion.envelope import SCHEMA_VERSION
from clarion.losses import telemetry_types
from clarion.registry import telemetry_document
from tests.clarion import telemetry_sample
from tests.clarion.cli_runs import SHOP, Ran, call, clarion


@pytest.fixture(autouse=True)
def shop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLARION_APP", SHOP)
    monkeypatch.setenv("CLARION_DATABASE_URL", f"sqlite:///{tmp_path / 'shop.db'}")


def test_the_console_script_says_its_version_and_lists_its_commands(tmp_path: Path) -> None:
    assert clarion("--version", cwd=tmp_path).out == f"clarion {__version__}\n"
    helped = clarion("--help", cwd=tmp_path)
    assert helped.status == 0
    commands = ("migrate", "migrations", "relay", "events", "subscribers", "deliveries", "listen", "doctor")
    assert all(f" {name} " in helped.out for name in commands)


GROUPS = ("migrations", "events", "subscribers", "subscribers add", "deliveries")
COMMANDS = (
    "migrate",
    "migrations revision",
    "migrations check",
    "migrations path",
    "relay",
    "events list",
    "events show",
    "events schema",
    "subscribers list",
    "subscribers show",
    "subscribers add webhook",
    "subscribers enable",
    "subscribers disable",
    "subscribers delete",
    "subscribers ping",
    "deliveries list",
    "deliveries show",
    "deliveries retry",
    "listen",
    "doctor",
)


@pytest.mark.parametrize("command", [*GROUPS, *COMMANDS])
def test_every_command_has_a_help_text(command: str) -> None:
    helped = call(*command.split(), "--help")
    assert helped.status == 0
    assert f"clarion {command}".split()[-1] in helped.all
    lines = [line for line in helped.out.splitlines() if line.strip()]
    assert len(lines[1].strip()) > 10  # a sentence below the usage


def test_help_loads_nothing_heavy() -> None:
    """SQLAlchemy alone takes half a second to import."""
    code = "import clarion.cli.commands, sys; print([m for m in sys.argv[1:] if m in sys.modules])"
    heavy = ("sqlalchemy", "alembic", "pydantic", "pycurl", "fastapi", "celery", "rich.table")
    done = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_its_extra_the_script_says_what_to_install() -> None:
    code = "import sys; sys.modules['typer'] = None; from clarion.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "clarion: the command line needs an extra: pip install 'clarion[cli]'\n"


@pytest.mark.parametrize(
    ("arguments", "variables", "status", "says"),
    [
        (["events", "list"], {"database_url": "mysql://h/d"}, 2, "CLARION_DATABASE_URL: Clarion runs on"),
        (["events", "list"], {}, 2, "CLARION_APP: name the module"),
        (["events", "list"], {"app": "no_such_app"}, 2, "CLARION_APP: cannot import no_such_app"),
        (["events", "frobnicate"], {}, 2, "No such command"),
        (["subscribers", "list"], {}, 2, "make it with: clarion migrate"),
        (["deliveries", "show", "x"], {}, 2, "should be a valid integer"),
        (["migrations", "revision", "-m", "x"], {}, 2, "CLARION_APP: name the module"),
        (["migrate", "--to", "a", "--back-to", "b"], {}, 2, "either --to or --back-to"),
        (
            ["doctor"],
            {"database_url": "postgresql://postgres@127.0.0.1:1/none"},
            1,
            "cannot be read: connection",
        ),
        (
            ["subscribers", "list"],
            {"database_url": "postgresql://postgres:hunter2@127.0.0.1:1/none"},
            1,
            "the database does not answer",
        ),
    ],
)
def test_errors_are_one_clear_line(
    tmp_path: Path, arguments: list[str], variables: dict[str, str], status: int, says: str
) -> None:
    ran = clarion(*arguments, cwd=tmp_path, **variables)
    assert ran.status == status, ran
    assert says in ran.all
    assert "hunter2" not in ran.all
    assert not (tmp_path / ".data").exists()


def test_a_database_without_tables_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    ran = clarion("subscribers", "list", cwd=tmp_path, database_url="sqlite:///empty.db")
    assert ran.status == 1
    assert ran.err == (
        "clarion: the database is not up to date (no such table: subscribers); run: clarion migrate\n"
    )


def test_types_are_listed_by_pattern() -> None:
    assert call("events", "list").out.count("\n") == 8
    listed = call("events", "list", "*:failed", "--json")
    assert [one["type"] for one in json.loads(listed.out)] == [
        "shop:order:failed",
        "shop:order:parcel:failed",
    ]
    wrong = call("events", "list", "shop:oder:*")
    assert wrong.status == 2
    assert "no event type matches 'shop:oder:*'; did you mean" in wrong.all


def test_a_type_shows_who_sees_which_field() -> None:
    shown = json.loads(call("events", "show", "shop:order:placed", "--json").out)
    fields = {field["path"]: field for field in shown["fields"]}
    assert fields["shop.order.note"] == {
        "path": "shop.order.note",
        "role": "fact",
        "type": "str | None",
        "notified": True,
        "telemetry": False,
        "classification": None,
        "doc": "What the customer wrote.",
        "purpose": "",
    }
    assert (fields["shop.order.number"]["telemetry"], fields["shop.order.number"]["classification"]) == (
        True,
        "count",
    )
    assert shown["scope"] == "shop/order"
    assert shown["schemas"]["notification"]["title"] == "shop:order:placed"
    people = call("events", "show", "shop:order:placed")
    assert "shop.order.channel" in people.out
    assert "Order {number} placed at {shop.name}" in people.out
    missing = call("events", "show", "shop:order:palced")
    assert (missing.status, missing.out) == (1, "")
    assert "there is no event type 'shop:order:palced'; did you mean 'shop:order:placed'" in missing.err


def test_schemas_are_valid_json_schemas() -> None:
    found = json.loads(call("events", "schema").out)
    assert set(found) == {t.name for t in telemetry_sample.TYPES.recorded}
    for both in found.values():
        for schema in both.values():
            jsonschema.Draft202012Validator.check_schema(schema)
    assert "notification" not in schemas(telemetry_sample.TYPES)["shop-heartbeat"]


def test_the_allow_list_is_what_the_collector_reads(tmp_path: Path) -> None:
    path = tmp_path / "allowed.json"
    assert call("events", "schema", "--telemetry", "--output", str(path)).out == f"{path}\n"
    loaded = AllowList.load(path)
    document = json.loads(path.read_text())
    assert loaded.version == document["version"] == SCHEMA_VERSION
    sent = {  # who answers for it, and what for, may change without anything else being sent
        name: {key: entry[key] for key in ("description", "source", "schema")}
        for name, entry in document["events"].items()
    }
    canonical = json.dumps(sent, sort_keys=True, separators=(",", ":"))
    assert loaded.hash == hashlib.sha256(canonical.encode()).hexdigest()
    assert set(loaded.events) == {t.name for t in telemetry_types(telemetry_sample.TYPES.recorded)}
    order = loaded.events["shop:order:placed"]
    assert order.source == "api"
    assert order.top == {
        "event_properties",
        "derived_properties",
        "app_properties",
        "system_properties",
        "schema_version",
    }
    assert "event_properties.shop.order.number" in order.leaves
    assert not any("note" in leaf for leaf in order.leaves)


def test_what_telemetry_sends_is_on_the_allow_list() -> None:
    loaded = AllowList.parse(telemetry_document(telemetry_sample.TYPES))
    properties: dict[str, Any] = {
        "event_properties": {"active": True},
        "derived_properties": {},
        "app_properties": {
            "version": "1.0",
            "dev": False,
            "cloud": False,
            "max_interactive_runs_parallelism": "1",
            "max_job_runs_parallelism": "1",
            "max_builds_parallelism": None,
        },
        "system_properties": {"host_os": "linux", "gpu_enabled_instance": False, "deployment": "other"},
        "schema_version": SCHEMA_VERSION,
    }
    heartbeat = loaded.events["shop-heartbeat"]
    assert heartbeat.faults(properties) == ()
    properties["event_properties"]["name"] = "Jane"
    assert [fault.problem for fault in heartbeat.faults(properties)] == ["unknown property"]


def test_typescript_has_the_browsers_events_only() -> None:
    assert typescript(telemetry_sample.TYPES) == (
        "// Generated by `clarion events schema --typescript`. "
        "Do not edit: change the declaration of the event instead.\n"
        "// One entry for each event type whose source is the browser; every value is from a closed set.\n"
        "\n"
        "export type ShopWindowOpenedName =\n"
        '  | "cart"\n'
        '  | "other"\n'
        '  | "shelf";\n'
        "\n"
        "export type ShopWindowOpenedArticles =\n"
        + "".join(f'  | "{v}"\n' for v in ("0", "1", "1000+", "101-1000", "11-50", "2-5", "51-100"))
        + '  | "6-10";\n'
        "\n"
        "export interface BrowserEvents {\n"
        "  /** A window of the shop was looked into. */\n"
        '  "shop-window:opened": {\n'
        "    /** Which one. */\n"
        "    name: ShopWindowOpenedName;\n"
        "    /** How many articles it shows. */\n"
        "    articles: ShopWindowOpenedArticles;\n"
        "    /** The client's version. */\n"
        "    client: string | null;\n"
        "  };\n"
        "}\n"
    )
    assert pascal("confirm:shown", "dialog_name") == "ConfirmShownDialogName"


def test_a_schema_is_of_one_kind_and_goes_where_it_can() -> None:
    assert call("events", "schema", "--telemetry", "--typescript").status == 2
    nowhere = call("events", "schema", "-o", "/no/such/place")
    assert nowhere.status == 2
    assert "cannot write /no/such/place: No such file or directory" in nowhere.err


DECLARED = '''
from sqlalchemy.orm import Mapped
from clarion import Event, Never, Upkeep, fact, identity


class KiteEvent(Event, kind="kite", layer="kite"):
    """A kite."""

    verbs = {"flown": "The kite was flown"}
    upkeep = Upkeep("kites", "1.0", Never("Asked each year."), ("kites",))

    kite_uuid: Mapped[str] = identity(doc="The kite.")
    kite_length: Mapped[int] = fact(anonymous=True, doc="Its line.", purpose="How high they fly.")
'''


def test_docs_are_written_wider_only_if_that_is_said_to_be_meant(tmp_path: Path) -> None:
    source, registry = tmp_path / "kites.py", tmp_path / "docs" / "reference" / "telemetry-registry.json"

    def docs(*options: str) -> Ran:
        return clarion("docs", *options, cwd=tmp_path, app="kites")

    source.write_text(DECLARED)
    assert docs().status == 0
    first = registry.read_text()
    source.write_text(DECLARED.replace('doc="Its line."', 'doc="Its line, in metres."'))
    assert "telemetry may send is: additive" in docs().all
    source.write_text(DECLARED.replace("Mapped[int]", "Mapped[float]"))
    for options in ([], ["--check"]):
        refused = docs(*options)
        assert refused.status == 2
        assert "kite:flown kite.length. If that is meant, say --wider" in refused.all
    assert json.loads(registry.read_text())["events"].keys() == {"kite:flown", "telemetry:events:lost"}
    assert "telemetry may send is: privacy-widening" in docs("--wider").all
    source.write_text(DECLARED.replace("anonymous=True", "anonymous=False"))
    assert "telemetry may send is: breaking" in docs().all
    source.write_text(DECLARED)
    assert docs("--wider").status == 0
    assert registry.read_text() == first
    registry.write_text("<<<<<<< HEAD")
    assert "cannot be read; restore it" in docs().all
