"""``python -m orchest demo``: the platform on a tour, and every event, delivery and attempt as it happens.

A platform process of its own in a temporary directory; a receiver on loopback that verifies what it is sent
with the public Standard Webhooks library and refuses one message once, so that a retry is seen; a collector
that telemetry goes to. Nothing leaves the machine, and nothing is left when it ends.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.text import Text
from standardwebhooks import Webhook, WebhookVerificationError

from clarion.testing import Received, Receiver, Reply
from orchest.client import CallFailed, Client, Overdue
from orchest.collecting import Collecting, NotStarted, collecting, switch_on
from orchest.events import CATALOGUE
from orchest.subscribers import SUBSCRIBABLE
from orchest.tour import NOTIFICATIONS, Tour, TourFailed
from orchest.watching import LOOK, TYPE, WIDTH, Told, Watcher

STARTING = 60.0
"""Seconds the platform may take to answer."""
ENDING = 20.0
"""Seconds the platform may take to end."""
SETTLING = 60.0
"""Seconds all deliveries may take after the tour."""
RETRY_AFTER = 2
"""Seconds the receiver asks the platform to wait when it refuses."""


class Verifier:
    """What the receiver answers: 204 if it is verified, 401 if not, and 503 to one message, once."""

    def __init__(self) -> None:
        self.secret = ""
        self.unverified = 0
        self.refused: str | None = None
        """The message that was answered 503."""
        self._verified: Counter[str] = Counter()
        self._lock = threading.Lock()

    def verified(self, id: str) -> int:
        """How often the message of this id came with a good signature."""
        with self._lock:
            return self._verified[id]

    def __call__(self, request: Received) -> Reply:
        try:
            Webhook(self.secret).verify(request.body, dict(request.headers))
        except WebhookVerificationError:
            self.unverified += 1
            return Reply(401)
        id = request.headers["webhook-id"]
        with self._lock:
            if self.refused is None:
                self.refused = id
                return Reply(503, (("retry-after", str(RETRY_AFTER)),))
            self._verified[id] += 1
        return Reply(204)


OURS = ("CLARION_", "ORCHEST_", "TELEMETRY_", "DO_NOT_TRACK")
"""Variables that would make the demo's platform another one."""


def database(data: Path) -> str:
    """The URL of the database of a platform that keeps its files in ``data``."""
    return f"sqlite:///{data / 'clarion.db'}"


def variables(data: Path) -> dict[str, str]:
    """The environment of the demo's platform: its own data and database, and loopback to be called.

    Telemetry is switched on, whatever the machine says: it goes to the demo's own collector, and no further.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return kept | {
        "ORCHEST_DATA": str(data),
        "CLARION_DATABASE_URL": database(data),
        "CLARION_EGRESS_ALLOWED_NETWORKS": "127.0.0.0/8",
        "ORCHEST_JOB_RUNS": "6",
        "ORCHEST_INTERACTIVE_RUNS": "2",
        "ORCHEST_BUILDS": "3",
        "TELEMETRY_DISABLED": "0",
        "TMPDIR": str(data),  # what a killed pip leaves goes with the rest
    }


@contextmanager
def temporary() -> Iterator[Path]:
    """A directory for as long as the context lasts.

    Processes that execute runs outlive the platform until they have seen that their run is over, and may
    write meanwhile: so the directory is removed again until it is gone.
    """
    root, never = Path(tempfile.mkdtemp(prefix="orchest-demo-")), threading.Event()
    try:
        yield root
    finally:
        for _ in range(int(ENDING / LOOK)):
            shutil.rmtree(root, ignore_errors=True)
            if not root.exists():
                break
            never.wait(LOOK)


@contextmanager
def platform(environ: Mapping[str, str], log: Path) -> Iterator[str]:
    """A platform process; its address. It has ended when the context is left.

    Raises:
        TourFailed: it did not start; says what it logged.
    """
    command = [sys.executable, "-m", "orchest", "run", "--port", "0"]
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command,
            env=dict(environ),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    # a session of its own: Ctrl-C reaches the demo, and the demo ends the platform in good order
    assert process.stdout is not None
    timer = threading.Timer(STARTING, process.kill)
    timer.start()
    try:
        said = process.stdout.readline()
        timer.cancel()
        if "http://" not in said:
            raise TourFailed(f"the platform did not start: {said}{tail(log)}")
        yield said[said.index("http://") :].strip()
    finally:
        timer.cancel()
        end(process)
        process.stdout.close()


def end(process: "subprocess.Popen[str]") -> None:
    process.terminate()
    try:
        process.wait(ENDING)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def tail(log: Path, size: int = 3000) -> str:
    return log.read_text("utf-8", "replace")[-size:]


def subscribe(client: Client, url: str) -> str:
    """Have the receiver told of everything; the secret its deliveries are signed with."""
    body = {"url": url, "name": "receiver", "format": "standard", "subscriptions": [{"event_type": "*"}]}
    made: str = client.post(f"{NOTIFICATIONS}/subscribers/webhooks", body)["secret"]
    return made


def settle(watcher: Watcher, collector: Collecting) -> None:
    """Until everything is delivered that was recorded, and every type has arrived at the collector."""
    deadline, never = time.monotonic() + SETTLING, threading.Event()
    quiet = 0
    while time.monotonic() < deadline and watcher.failure is None and quiet < 3:
        never.wait(LOOK)
        missing = {one.name for one in CATALOGUE} - collector.arrived().keys()
        quiet = 0 if watcher.pending or missing else quiet + 1


def summary(told: Mapping[str, Told], arrived: Mapping[str, int]) -> Iterator[Text]:
    """A line for each type, with what was seen of it."""
    head = (
        f"{'EVENT TYPE':{TYPE}}{'EVENTS':>6} {'DELIVERED':>9} {'TRIES':>5} {'VERIFIED':>8} {'TELEMETRY':>9}"
    )
    yield Text(head, "bold")
    for one in CATALOGUE:
        seen, sent = told.get(one.name, Told()), arrived.get(one.name, 0)
        numbers = f"{seen.events:>6} {seen.delivered:>9} {seen.attempts:>5} {seen.verified:>8} {sent:>9}"
        complete = sent > 0 and (seen.complete or one.name not in SUBSCRIBABLE)
        yield Text(f"{one.name:{TYPE}}{numbers}", "" if complete else "bold red")


def show(console: Console) -> bool:
    """The demo. Whether everything happened, was delivered, and verified."""
    verifier, began = Verifier(), time.monotonic()
    with ExitStack() as stack:
        root = stack.enter_context(temporary())
        data, log = root / "data", root / "platform.log"
        receiver = stack.enter_context(Receiver(verifier))
        collector = stack.enter_context(collecting(root / "collector"))
        switch_on(database(data), data, collector.url, collector.write_key, datetime.now(UTC))
        try:
            url = stack.enter_context(platform(variables(data), log))
            console.print(f"Orchest runs at {url}, a receiver of webhooks at {receiver.url},")
            console.print(
                f"a collector of telemetry at {collector.url}: all for this demo, on this machine only."
            )
            client = Client(url)
            verifier.secret = subscribe(client, receiver.url)
            watcher = stack.enter_context(Watcher(client, console, verifier.verified))
            Tour(client, watcher.heading).run()
            settle(watcher, collector)
        except (TourFailed, CallFailed, Overdue, NotStarted, OSError) as error:
            console.print(f"\nThe tour failed: {error}\n{tail(log)}", markup=False)
            return False
        return conclude(console, watcher, verifier, collector, time.monotonic() - began)


def conclude(
    console: Console, watcher: Watcher, verifier: Verifier, collector: Collecting, seconds: float
) -> bool:
    """Print the table of what was seen; whether it was everything."""
    arrived, refused = collector.arrived(), collector.refused()
    watcher.heading("All event types, and who was told of them")
    for line in summary(watcher.told, arrived):
        console.print(line, soft_wrap=True)
    complete = [one for one in SUBSCRIBABLE if watcher.told.get(one.name, Told()).complete]
    sent = [one for one in CATALOGUE if arrived.get(one.name)]
    console.print(
        f"\n{len(complete)} of {len(SUBSCRIBABLE)} recorded, {len(sent)} of {len(CATALOGUE)} with telemetry."
    )
    events, attempts = (
        sum(getattr(one, name) for one in watcher.told.values()) for name in ("events", "attempts")
    )
    retried = "one was refused with 503 and came again" if verifier.refused else "none was refused"
    console.print(
        f"{events} events, {attempts} attempts, {retried}; {verifier.unverified} signatures were wrong.\n"
        f"{sum(arrived.values())} telemetry events kept, {refused} refused. It took {seconds:.0f} seconds."
    )
    if watcher.failure is not None:
        console.print(f"The watch ended early: {watcher.failure}", markup=False)
        return False
    everything = len(complete) == len(SUBSCRIBABLE) and len(sent) == len(CATALOGUE)
    return everything and verifier.refused is not None and not verifier.unverified and not refused


def main(arguments: Sequence[str] = ()) -> int:
    """The exit status: 0 if all types happened, and all their deliveries were verified."""
    if arguments:
        print(f"the demo takes no arguments, not {' '.join(arguments)}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # end in good order
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(width=WIDTH, highlight=False)
    return 0 if show(console) else 1
