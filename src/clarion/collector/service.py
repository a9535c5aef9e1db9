"""The collector itself, without HTTP: decide, make durable, show, forget.

:class:`Collector` owns the journal, the loader and the store of one data directory for as long as it runs.
"""

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal
from urllib.parse import parse_qsl, urlencode
from uuid import UUID

import structlog

from clarion.collector import oversight
from clarion.collector.access import AccessToken
from clarion.collector.audit import ERASED, Audit, Look, audit_file
from clarion.collector.ingest import Judge, Judged, stamp
from clarion.collector.journal import SEGMENT_SECONDS, Journal, StorageFailed
from clarion.collector.keys import RateLimit, WriteKey, WriteKeys, keys_file
from clarion.collector.live import Tail
from clarion.collector.loader import Loader
from clarion.collector.privacy import K_DEFAULT, Pseudonyms, UnknownNames
from clarion.collector.questions import Span
from clarion.collector.saved import SavedViews, View
from clarion.collector.schema import AllowList
from clarion.collector.sql import Table
from clarion.collector.store import DuckDBStore, Erased, Store
from clarion.collector.timing import Rate, Times
from clarion.collector.wire import Arrival
from clarion.errors import Forbidden, NotFound

Resolution = Literal["ignore", "reopen", "purge"]
"""What can become of a refused shape."""

RETENTION: Final = timedelta(days=400)
"""How long events are kept when nothing else is said (T30)."""

_FIRST_EXPIRY: Final = 60.0
_EXPIRE_EVERY: Final = 24 * 3600.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Settings:
    """Everything a collector is told. ``access`` opens its pages and the query API; none keeps them shut."""

    data: Path
    schema: AllowList
    write_keys: tuple[WriteKey, ...] = ()
    access: tuple[AccessToken, ...] = ()
    k: int = K_DEFAULT
    events_per_second: float = 20_000.0
    burst: float = 100_000.0
    body_bytes: int = 20 * 1024 * 1024
    retention: timedelta = RETENTION
    segment_seconds: float = SEGMENT_SECONDS
    administrators: frozenset[str] = frozenset()
    """Names of the access tokens that may ask SQL and make backups; none at all unless said otherwise."""
    canary: str | None = None
    """The project in which a canary has to arrive (:mod:`.canary`); None expects none."""

    @property
    def keys_file(self) -> Path:
        """Where issued write keys are kept, next to the events."""
        return keys_file(self.data)


class Collector:
    """One running collector. ``clock`` gives the wall time (aware UTC), ``monotonic`` seconds for rates."""

    def __init__(
        self,
        settings: Settings,
        store: Store | None = None,
        clock: Callable[[], datetime] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.clock = clock or _utc_now
        settings.data.mkdir(parents=True, exist_ok=True)
        self.store: Store = store or DuckDBStore(settings.data / "events.duckdb")
        self.audit = Audit(audit_file(settings.data), self.clock)
        self.saved = SavedViews(settings.data / "views.json")
        self.pseudonyms = Pseudonyms.keep(settings.data / "collector.key")
        names = UnknownNames(self.pseudonyms, settings.k, oversight.unknown_names(self.store))
        self.judge = Judge(settings.schema, self.pseudonyms, names)
        self.keys = WriteKeys(settings.write_keys, settings.keys_file, monotonic)
        self.limit = RateLimit(settings.events_per_second, settings.burst, monotonic)
        self.tail = Tail()
        self.loader = Loader(self.store)
        self.journal = Journal(
            settings.data / "journal",
            self.loader.offer,
            lambda: self.judge.drain(self.clock()),
            segment_seconds=settings.segment_seconds,
        )
        self.answers: Counter[tuple[str, int]] = Counter()
        """(wire format, status) to how many requests, for /metrics."""
        self.took = Times()
        """How long the answers to senders took, body and disk included."""
        self.rate = Rate(monotonic)
        """How many events were kept lately."""
        self.expired: tuple[datetime, int] | None = None
        """When the retention was last kept, and how many events went."""
        self.stopping = threading.Event()
        self._keeper = threading.Thread(target=self._expire_forever, name="collector-retention", daemon=True)

    def start(self) -> None:
        """Load what a crash left, then take events."""
        self.loader.start(self.journal.recover())
        self.journal.start(self.store.newest())
        self._keeper.start()

    def stop(self) -> None:
        """Make everything durable and loaded, close the store. Idempotent."""
        if self.stopping.is_set():
            return
        self.stopping.set()
        self.tail.close()
        self.journal.stop()
        self.loader.stop()
        self._keeper.join()
        self.store.close()

    @property
    def ready(self) -> bool:
        """Whether an event would be kept now."""
        return not (self.stopping.is_set() or self.journal.failed or self.loader.full)

    async def keep(self, project: str, arrivals: Sequence[Arrival]) -> list[Judged]:
        """Judge, write, fsync, then show to the live tail. Raises StorageFailed: nothing was promised."""
        if self.loader.full:
            raise StorageFailed("the store is behind")
        judged = self.judge.batch(project, arrivals, self.clock())
        await self.journal.append(b"".join([one.lines for one in judged]))
        self.rate.add(len(judged))
        if self.tail:
            for one in judged:
                if one.record is not None:
                    self.tail.publish(one.record)
        return judged

    def flush(self) -> bool:
        """Make everything answered so far visible to questions; False when the store is too slow."""
        self.journal.seal()
        return self.loader.wait()

    def stored_ids(self, project: str, installation: str) -> tuple[str, ...]:
        """How an installation may be named in the store: by the id it sends, or as the collector shows it."""
        names = [self.pseudonyms.installation(project, installation)]
        with contextlib.suppress(ValueError):
            names.append(str(UUID(installation)))
        return tuple(names)

    def shown_id(self, project: str, installation: str) -> str:
        """The id under which an installation is shown, given either; never the one it sends itself."""
        with contextlib.suppress(ValueError):
            if (given := UUID(installation)).version == 8:  # the form of our pseudonyms alone
                return str(given)
        return self.pseudonyms.installation(project, installation)

    def erase(self, who: str, project: str, installation: str) -> Erased:
        """Forget an installation, journal and store; with the proof count. Raises NotAudited."""
        self.flush()
        stored = self.stored_ids(project, installation)
        with self.audit.looking(Look(who, "erase", project, installation=ERASED)) as look:
            erased = self.store.erase(project, stored)
            look.events = erased.events
        self.audit.forget(project, stored)
        self.saved.forget(stored)
        return erased

    def resolve(self, who: str, project: str, shape: Sequence[str], how: Resolution) -> int:
        """Ignore a refused shape (the values of ``SHAPE_KEY``), reopen an ignored one, or forget it was
        refused.

        How many refused values went. Raises NotFound, NotAudited.
        """
        self.flush()
        if not oversight.is_refused(self.store, project, shape):
            raise NotFound("nothing of that shape was refused")
        event, *more = shape
        detail = ", ".join(part for part in more if part)
        with self.audit.looking(Look(who, how, project, event, detail=detail)) as look:
            if how == "purge":
                look.events = self.store.purge(project, shape)
            else:
                self.store.ignore(project, shape, how == "ignore")
        return look.events

    def save_view(self, name: str, page: str, query: str) -> tuple[View, bool]:
        """Keep a page under a name; the view, and whether it is new. Raises InvalidInput, Conflict."""
        view = View.of(name, page, query)
        asked = dict(parse_qsl(view.query))
        if who := asked.get("installation"):  # never kept as it is sent
            shown = asked | {"installation": self.shown_id(asked.get("project", ""), who)}
            view = replace(view, query=urlencode(shown))
        return view, self.saved.save(view)

    def ask(self, who: str, span: Span, text: str) -> Table:
        """What SQL that an administrator wrote finds. Raises Forbidden, InvalidInput, QueryTooSlow,
        NotAudited.
        """
        if who not in self.settings.administrators:
            raise Forbidden(
                "this access token may not ask SQL: see `clarion collector serve --administrator`"
            )
        self.flush()
        with self.audit.looking(Look(who, "sql", span.project, detail=text)) as look:
            found = self.store.select(text, span.project, stamp(span.since), stamp(span.until))
            look.events = len(found.rows)
        return found

    def expire(self) -> int:
        """Forget what is older than the retention: events, shapes, counters, who looked; how many events."""
        now = self.clock()
        before = stamp(now - self.settings.retention)
        self.audit.expire(before)
        removed = self.store.expire(before)
        self.expired = (now, removed)
        return removed

    def _expire_forever(self) -> None:
        wait = _FIRST_EXPIRY
        while not self.stopping.wait(wait):
            wait = _EXPIRE_EVERY
            try:
                removed = self.expire()
            except Exception as error:  # a database fault: tried again at the next turn, and logged
                _log.error("collector_expire_failed", error=type(error).__name__)
            else:
                _log.info("collector_expired", events=removed)

    async def __aenter__(self) -> "Collector":
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.stop)


def _utc_now() -> datetime:
    return datetime.now(UTC)
