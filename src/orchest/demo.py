"""``python -m orchest demo``: the platform on a tour, and every event, delivery and attempt as it happens.

A platform process of its own in a temporary directory, and a receiver on loopback that verifies what it is
sent with the public Standard Webhooks library and refuses one message once, so that a retry is seen. Nothing
leaves the machine, and nothing is left when it ends.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.text import Text
from standardwebhooks import Webhook, WebhookVerificationError

from clarion.testing import Received, Receiver, Reply
from orchest.client import CallFailed, Client, Overdue
from orchest.subscribers import SUBSCRIBABLE
from orchest.tour import NOTIFICATIONS, Tour, TourFailed
from orchest.watching import TYPE, Told, Watcher

WIDTH = 100
"""Columns, where the output is no terminal."""
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
    }


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
    timer = threading.Timer(STARTING, process.kill)
    timer.start()
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        timer.cancel()
        if "http://" not in said:
            raise TourFailed(f"the platform did not start: {said}{tail(log)}")
        yield said[said.index("http://") :].strip()
    finally:
        timer.cancel()
        end(process)


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


def settle(watcher: Watcher, receiver: Verifier) -> None:
    """Until everything is delivered that was recorded."""
    end, never = time.monotonic() + SETTLING, threading.Event()
    quiet = 0
    while time.monotonic() < end and watcher.failure is None and quiet < 5:
        never.wait(0.2)
        quiet = 0 if watcher.pending else quiet + 1


def summary(told: Mapping[str, Told]) -> Iterator[Text]:
    """A line for each type, with what was seen of it."""
    yield Text(
        f"{'EVENT TYPE':{TYPE}} {'EVENTS':>7} {'DELIVERIES':>11} {'ATTEMPTS':>9} {'VERIFIED':>9}", "bold"
    )
    for one in SUBSCRIBABLE:
        seen = told.get(one.name, Told())
        numbers = f"{seen.events:>7} {seen.deliveries:>11} {seen.attempts:>9} {seen.verified:>9}"
        yield Text(f"{one.name:{TYPE}} {numbers}", "" if seen.complete else "bold red")


def show(console: Console) -> bool:
    """The demo. Whether everything happened, was delivered, and verified."""
    verifier = Verifier()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="orchest-demo-") as directory, Receiver(verifier) as receiver:
        data, log = Path(directory) / "data", Path(directory) / "platform.log"
        with platform(variables(data), log) as url:
            client = Client(url)
            console.print(
                f"Orchest runs at {url}, its receiver at {receiver.url}; both are of this demo only."
            )
            verifier.secret = subscribe(client, receiver.url)
            with Watcher(client, console, verifier.verified) as watcher:
                try:
                    Tour(client, watcher.heading).run()
                    settle(watcher, verifier)
                except (TourFailed, CallFailed, Overdue, OSError) as error:
                    console.print(f"\nThe tour failed: {error}\n{tail(log)}", markup=False, highlight=False)
                    return False
    return conclude(console, watcher, verifier, time.monotonic() - began)


def conclude(console: Console, watcher: Watcher, verifier: Verifier, seconds: float) -> bool:
    """Print the table of what was seen; whether it was everything."""
    watcher.heading("All event types, and who was told of them")
    for line in summary(watcher.told):
        console.print(line, soft_wrap=True)
    complete = [one for one in SUBSCRIBABLE if watcher.told.get(one.name, Told()).complete]
    every, events = len(SUBSCRIBABLE), sum(one.events for one in watcher.told.values())
    attempts = sum(one.attempts for one in watcher.told.values())
    console.print(f"{len(complete)} of {every} recorded, delivered and verified.", highlight=False)
    retried = "one was refused with 503 and came again" if verifier.refused else "none was refused"
    console.print(f"{events} events, {attempts} attempts, {retried}; {verifier.unverified} unverified.")
    console.print(f"It took {seconds:.0f} seconds.")
    if watcher.failure is not None:
        console.print(f"The watch ended early: {watcher.failure}", markup=False, highlight=False)
    return watcher.failure is None and len(complete) == every and verifier.unverified == 0


def main(arguments: Sequence[str] = ()) -> int:
    """The exit status: 0 if all types happened, and all their deliveries were verified."""
    if arguments:
        print(f"the demo takes no arguments, not {' '.join(arguments)}", file=sys.stderr)
        return 2
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(width=WIDTH, highlight=False)
    return 0 if show(console) else 1
