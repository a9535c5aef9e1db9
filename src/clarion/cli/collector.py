"""``clarion collector``: running our own analytics backend, and who may send to it."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clarion.cli.installation import installation, log_to_stderr
from clarion.cli.printing import AsJson, print_json, say, table
from clarion.errors import ClarionError, ConfigurationError

if TYPE_CHECKING:
    from clarion.collector.schema import AllowList
    from clarion.collector.store import Store
    from clarion.messages import Answer

app = typer.Typer(help="Our own analytics backend: takes telemetry and shows it.", no_args_is_help=True)
keys_app = typer.Typer(help="Write keys: who may send, and for which project.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")

HOST, PORT, DATA = "127.0.0.1", 8010, Path(".data/collector")

Data = Annotated[
    Path, typer.Option(envvar="CLARION_COLLECTOR_DATA", help="The directory of events, keys and tokens.")
]
Project = Annotated[
    str, typer.Argument(metavar="PROJECT", help="The application that sends: a-z, 0-9 and '-'.")
]


@app.command("serve")
def serve(
    host: Annotated[
        str, typer.Option(envvar="CLARION_COLLECTOR_HOST", help="The address to bind; 0.0.0.0 is every one.")
    ] = HOST,
    port: Annotated[
        int,
        typer.Option(min=0, max=65535, envvar="CLARION_COLLECTOR_PORT", help="The port; 0 takes a free one."),
    ] = PORT,
    data: Data = DATA,
    schema: Annotated[
        Path | None,
        typer.Option(
            envvar="CLARION_COLLECTOR_SCHEMA",
            help="What may be kept, as `clarion events schema --telemetry` writes it; "
            "without it, what the application here (CLARION_APP) declares.",
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="CLARION_COLLECTOR_TOKEN",
            help="An access token to the query API and its pages, instead of those kept with the data.",
        ),
    ] = None,
    administrators: Annotated[
        list[str],
        typer.Option(
            "--administrator",
            metavar="NAME",
            envvar="CLARION_COLLECTOR_ADMINISTRATORS",
            help="Whose access token (`token --name`) may ask SQL and make backups; each is written down.",
        ),
    ] = [],  # noqa: B006 -- typer copies it
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="CLARION_COLLECTOR_STORE",
            help="Keep events in ClickHouse: clickhouse://user:password@host:8123/database "
            "(clickhouses: over TLS), of which this is the only collector.",
        ),
    ] = None,
    retention_days: Annotated[
        int, typer.Option(min=1, max=36_500, help="Days an event is kept.", envvar="CLARION_COLLECTOR_DAYS")
    ] = 400,
    canary: Annotated[
        str | None,
        typer.Option(
            metavar="PROJECT",
            envvar="CLARION_COLLECTOR_CANARY",
            help="Expect a canary in this project: no verdict is green when none has arrived for 26 hours.",
        ),
    ] = None,
) -> None:
    """Take telemetry and show it, until SIGTERM or SIGINT. One process owns the data directory.

    At the first start an access token is made and printed, once; `clarion collector token` makes a new one.
    Whoever sends needs a write key: `clarion collector keys issue PROJECT`.
    """
    from clarion.collector.access import AccessToken, make_token, read_tokens
    from clarion.collector.server import serve as run
    from clarion.collector.service import Settings
    from clarion.engines import relax_gc
    from clarion.settings import read_settings

    log_to_stderr(read_settings())
    allowed = allow_list(schema)
    with written_to(data):
        access = read_tokens(data) if token is None else (AccessToken.of(token, "given"),)
        if not access:
            say(f"Access token, shown this once: {make_token(data)}")
            access = read_tokens(data)
    settings = Settings(
        data,
        allowed,
        access=access,
        retention=timedelta(days=retention_days),
        administrators=frozenset(administrators),
        canary=canary,
    )
    unknown = settings.administrators - {one.name for one in access}
    if unknown:
        raise ConfigurationError(f"no access token has the name {', '.join(sorted(unknown))}")
    events = None if store is None else open_store(store)

    def listening(bound: int) -> None:
        relax_gc()  # everything is loaded now; a full search of it stopped every answer for 50 to 160 ms
        shown = f"[{host}]" if ":" in host else host
        say(f"The collector runs: http://{shown}:{bound} ({len(allowed.events)} event types may be kept)")

    with ending_is_no_fault(), written_to(data):
        started = run(settings, host, port, events, listening)
    raise typer.Exit(0 if started else 1)


def allow_list(schema: Path | None) -> "AllowList":
    """What may be kept: the file's, or else what the application declares. Raises ConfigurationError."""
    from clarion.collector.schema import AllowList
    from clarion.registry import telemetry_document

    if schema is not None:
        return AllowList.load(schema)
    here = installation()
    if not here.settings.app:
        raise ConfigurationError(
            "nothing says what may be kept: give --schema FILE, or name the application in CLARION_APP"
        )
    return AllowList.parse(telemetry_document(here.catalogue))


def open_store(url: str) -> "Store":
    """The ClickHouse database at ``clickhouse://user:password@host:port/database``.

    ``clickhouses`` is the same over TLS; ``chdb:///directory`` is ClickHouse's engine in this process. What
    is not said is what the client assumes: ``localhost``, 8123 (TLS: 8443), ``default``.

    Raises:
        ConfigurationError: no such store, an extra is missing, or the database does not answer.
    """
    from urllib.parse import urlsplit

    from clarion.engines import require

    found = urlsplit(url)
    if found.scheme not in ("clickhouse", "clickhouses", "chdb"):
        raise ConfigurationError(
            "a store is clickhouse://user:password@host:port/database (clickhouses: over TLS);"
            " without one, events are kept in one file of the data directory"
        )
    require("clickhouse_connect", "clickhouse")
    from clickhouse_connect.driver.exceptions import Error

    from clarion.collector.clickhouse import ClickHouseStore

    try:
        if found.scheme == "chdb":
            return ClickHouseStore(interface="chdb", path=found.path, database="default")
        interface = "https" if found.scheme == "clickhouses" else "http"
        return ClickHouseStore(dsn=url, interface=interface)
    except (Error, ImportError, ValueError) as error:
        why = str(error).partition("\n")[0]
        if found.password:
            why = why.replace(found.password, "***")
        raise ConfigurationError(
            f"the store at {found.hostname or found.path} cannot be used: {why}"
        ) from error


@contextmanager
def written_to(data: Path) -> Iterator[None]:
    """The data directory, made if it is not there; what the system refuses in it is said in a sentence."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield
    except OSError as error:
        where = error.filename or data
        raise ConfigurationError(f"the data directory cannot be used: {where}: {error.strerror}") from error


@contextmanager
def ending_is_no_fault() -> Iterator[None]:
    """Exit with 0 on SIGTERM and SIGINT, which uvicorn raises once more when it has ended."""
    before = {one: signal.signal(one, lambda *_: sys.exit(0)) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


@app.command("token")
def token(
    data: Data = DATA,
    name: Annotated[
        str, typer.Option(help="Whose it is: a-z, 0-9 and '-'. The audit log writes it down.")
    ] = "default",
    revoke: Annotated[bool, typer.Option("--revoke", help="Delete the token of that name instead.")] = False,
) -> None:
    """Make a new access token and print it. That name's old one ends when the collector is started next."""
    from clarion.collector.access import make_token, revoke_token

    with written_to(data):
        if revoke:
            revoke_token(data, name)
            say("The token ends when the collector is started next.")
        else:
            say(make_token(data, name))


@app.command("audit")
def audit(
    data: Data = DATA,
    most: Annotated[int, typer.Option(min=1, help="How many looks, the newest first.")] = 100,
    json: AsJson = False,
) -> None:
    """Show who looked at raw events or changed what is kept, when, with which filter, and how many.

    The collector may be running.
    """
    from clarion.collector.audit import audit_file, read_looks

    with written_to(data):
        looks = read_looks(audit_file(data), most)
    if json:
        print_json(looks)
        return
    rows = [
        (
            look["at"],
            look["who"],
            look["what"],
            look["project"],
            " ".join(
                [
                    *(f"{name}={look[name]}" for name in ("event", "installation", "version") if look[name]),
                    *"".join(one if one.isprintable() else " " for one in look["detail"]).split(),
                ]
            ),
            "open" if look["events"] is None else str(look["events"]),
        )
        for look in looks
    ]
    table(("AT", "WHO", "WHAT", "PROJECT", "FILTER", "EVENTS"), rows, empty="nobody looked at raw events")


@keys_app.command("issue")
def issue(project: Project, data: Data = DATA) -> None:
    """Make a write key and print it; only its digest is kept. A running collector takes it at once."""
    from clarion.collector.keys import issue as make
    from clarion.collector.keys import keys_file

    with written_to(data):
        say(make(keys_file(data), project))


@keys_app.command("list")
def list_keys(data: Data = DATA, json: AsJson = False) -> None:
    """List the write keys by their digests."""
    from clarion.collector.keys import keys_file, read_keys

    found = read_keys(keys_file(data))
    if json:
        print_json([{"project": k.project, "digest": k.digest, "revoked": k.revoked} for k in found])
        return
    rows = [(k.project, k.digest, "revoked" if k.revoked else "in force") for k in found]
    table(("PROJECT", "DIGEST", "STATE"), rows, empty="there are no write keys")


@keys_app.command("revoke")
def revoke(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The key, or its digest from the list.")],
    data: Data = DATA,
) -> None:
    """Refuse a write key from now on, within a second if the collector runs."""
    from clarion.collector.keys import keys_file
    from clarion.collector.keys import revoke as refuse

    with written_to(data):
        refuse(keys_file(data), key)
    say("The key is revoked.")


@app.command("erase")
def erase(
    installation_id: Annotated[
        str, typer.Argument(metavar="INSTALLATION", help="Its id, as it says itself or as the page shows it.")
    ],
    project: Annotated[str, typer.Option(envvar="CLARION_COLLECTOR_PROJECT", help="Of which project.")],
    token: Annotated[str, typer.Option(envvar="CLARION_COLLECTOR_TOKEN", help="An access token.")],
    url: Annotated[
        str, typer.Option(envvar="CLARION_COLLECTOR_URL", help="Where the collector runs.")
    ] = f"http://{HOST}:{PORT}",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: AsJson = False,
) -> None:
    """Delete everything a collector keeps of one installation, and count what is left of it: nothing."""
    if not yes:
        typer.confirm(f"Everything of {installation_id} is deleted for good. Go on?", abort=True)
    erased = asked(url, token, "installations/erase", {"project": project, "installation": installation_id})
    if json:
        print_json(erased)
    else:
        say(f"Deleted: {erased['events']} events, {erased['shapes']} refused shapes. Left: {erased['left']}.")
    raise typer.Exit(0 if erased["left"] == 0 else 1)


def asked(url: str, token: str, path: str, question: dict[str, str]) -> dict[str, Any]:
    """What a collector answers. Raises ClarionError, which says what it said.

    Its host is allowed whatever its address, for it was named by whoever runs the command.
    """
    import asyncio
    import json

    from clarion.addresses import EgressPolicy, parse_url
    from clarion.egress import Egress
    from clarion.messages import Failure, Request, Response
    from clarion.settings import read_settings

    target, settings = parse_url(url), read_settings()
    policy = EgressPolicy.of(settings.egress_allowed_networks, (*settings.egress_allowed_hosts, target.host))
    request = Request(
        url=f"{url.rstrip('/')}/api/{path}",
        body=json.dumps(question).encode(),
        headers={"content-type": "application/json", "authorization": f"Bearer {token}"},
    )

    async def send() -> "Answer":
        async with Egress(policy) as egress:
            return await egress.send(request)

    match asyncio.run(send()):
        case Response(status=200, body=body):
            answer: dict[str, Any] = json.loads(body)
            return answer
        case Response(status=status, body=body):
            said = body.decode("utf-8", "replace")
            raise ClarionError(f"the collector answered {status}: {said}")
        case Failure() as failure:
            raise ClarionError(f"the collector at {url} does not answer: {failure.message}")
