"""What the collector can take: ``python bench/collector.py``, or ``run()`` for the numbers alone.

Durable ingest is measured over HTTP against a real server process, every answer sent after fsync; the load
generator runs on the same machine, so the server has what is left. Queries run on ``EVENTS`` events.
"""

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

import httpx  # noqa: E402
from tests.clarion.collector.sample import CREATED, FAILED, KEY, PROJECT, SCHEMA, TOKEN, event  # noqa: E402

from bench.load import load, post  # noqa: E402
from clarion.collector import oversight, questions  # noqa: E402
from clarion.collector.access import AccessToken  # noqa: E402
from clarion.collector.app import create_app  # noqa: E402
from clarion.collector.ingest import stamp  # noqa: E402
from clarion.collector.keys import WriteKey  # noqa: E402
from clarion.collector.questions import Span  # noqa: E402
from clarion.collector.records import Event, line  # noqa: E402
from clarion.collector.service import Settings  # noqa: E402
from clarion.collector.store import DuckDBStore  # noqa: E402

EVENTS = int(os.environ.get("BENCH_COLLECTOR_EVENTS", "1000000"))
SQL = "SELECT app_version, count(DISTINCT installation) FROM events GROUP BY 1 ORDER BY 1"
SECONDS = float(os.environ.get("BENCH_COLLECTOR_SECONDS", "8"))


def run() -> dict[str, float]:
    """Numbers by name: rates per second, times in milliseconds."""
    with tempfile.TemporaryDirectory() as scratch:
        found = asyncio.run(_ingest(Path(scratch) / "ingest"))
        found |= _queries(Path(scratch) / "queries")
    return found


async def _ingest(data: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.clarion.collector.serving", str(data), "0.5"]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    server = subprocess.Popen(
        command, stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}
    )
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        # Distinct ids are made beforehand; the generator only splices them in.
        single = await _load(port, 1, connections=16)
        batched = await _load(port, 100, connections=8)
        paced = await _load(port, 100, connections=8, rate=100.0)
    finally:
        server.terminate()
        server.wait(30)
    return {
        "collector_single_requests_per_s": single[0],
        "collector_single_p50_ms": single[1],
        "collector_single_p99_ms": single[2],
        "collector_batched_events_per_s": batched[0] * 100,
        "collector_batched_saturated_p99_ms": batched[2],
        "collector_batched_at_10k_events_per_s": paced[0] * 100,
        "collector_batched_at_10k_p50_ms": paced[1],
        "collector_batched_at_10k_p99_ms": paced[2],
    }


async def _load(port: int, size: int, connections: int, rate: float = 0) -> tuple[float, float, float]:
    """Requests a second, median and 99th percentile in ms; as fast as answers come, or at a ``rate``."""
    marker = "11111111-2222-4333-8444-555555555555"
    one = json.dumps(event(FAILED) | {"uuid": marker}, separators=(",", ":"))
    head, tail = one.split(marker)

    def request() -> bytes:
        events = ",".join(f"{head}{_uuid()}{tail}" for _ in range(size))
        return post("/batch/", f'{{"api_key":"{KEY}","batch":[{events}]}}'.encode())

    answers = await load(port, request, connections=connections, seconds=SECONDS, rate=rate)
    assert not answers.refused, f"{answers.refused} requests were refused"
    return answers.per_second, answers.percentile(0.5), answers.percentile(0.99)


def _uuid() -> str:
    text = f"{random.getrandbits(128):032x}"
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-8{text[17:20]}-{text[20:]}"


def _queries(data: Path) -> dict[str, float]:
    data.mkdir()
    store = DuckDBStore(data / "events.duckdb")
    end = datetime(2026, 11, 20, tzinfo=UTC)
    spent = 0.0
    for number in range(1, 21):
        segment = _segment(data / f"{number}.ndjson", EVENTS // 20, end)
        start = time.perf_counter()
        store.load(number, segment)
        spent += time.perf_counter() - start
    span, month = Span(PROJECT, end - timedelta(days=100), end), Span(PROJECT, end - timedelta(days=30), end)
    asked: dict[str, Callable[[], object]] = {
        "volume": lambda: questions.volume(store, span, end),
        "series_day": lambda: questions.series(store, span, "day"),
        "properties_30d": lambda: questions.properties(store, month, SCHEMA, FAILED),
        "installations_day": lambda: questions.installations(store, span, "day"),
        "installations_month": lambda: questions.installations(store, span, "month"),
        "versions_week": lambda: questions.versions(store, span, "week"),
        "funnel_3": lambda: questions.funnel(store, span, [CREATED, FAILED, CREATED], timedelta(days=14)),
        "retention_week": lambda: questions.retention(store, span, "week"),
        "adoption": lambda: questions.adoption(store, span),
        "platforms": lambda: questions.platforms(store, span, SCHEMA),
        "verdict": lambda: oversight.verdict(store, span, SCHEMA),
        "quarantine": lambda: oversight.quarantine(store, span),
        "sql": lambda: store.select(SQL, PROJECT, stamp(span.since), stamp(span.until)),
    }
    found = {f"collector_query_{name}_ms": _median(ask) for name, ask in asked.items()}
    found |= asyncio.run(_pages(data, store, end))
    found["collector_store_bytes_per_event"] = store.size() / EVENTS
    found["collector_load_events_per_s"] = EVENTS / spent
    store.close()
    return found


async def _pages(data: Path, store: DuckDBStore, now: datetime) -> dict[str, float]:
    """Whole pages of the collector, from the request to the last byte of HTML."""
    settings = Settings(data, SCHEMA, (WriteKey.of(PROJECT, KEY),), (AccessToken.of(TOKEN),))
    app = create_app(settings, store, clock=lambda: now)
    asked = {
        "events": "/ui?days=90",
        "event": f"/ui/events/{FAILED}?days=90",
        "installations": "/ui/installations?days=90",
        "versions": "/ui/versions?days=90",
        "journeys": f"/ui/journeys?days=90&step={CREATED}&step={FAILED}",
        "quarantine": "/ui/quarantine?days=90",
        "operation": "/ui/operation?days=90",
    }
    found = {}
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://collector") as http:
        await http.post("/ui/login", data={"token": TOKEN})
        for name, path in asked.items():
            times = []
            for _ in range(5):
                start = time.perf_counter()
                answer = await http.get(path)
                times.append((time.perf_counter() - start) * 1000)
                answer.raise_for_status()
            found[f"collector_page_{name}_ms"] = sorted(times)[2]
    return found


def _segment(path: Path, size: int, end: datetime) -> Path:
    people = [str(uuid.UUID(int=place)) for place in range(5000)]
    names = [f"project:thing-{place}:changed" for place in range(18)] + [CREATED, FAILED]
    weights = [1.0] * 18 + [3.0, 6.0]
    shapes = {name: event(name if name in (CREATED, FAILED) else CREATED)["properties"] for name in names}
    with path.open("wb") as file:
        for name in random.choices(names, weights, k=size):
            at = stamp(end - timedelta(seconds=random.random() * 86400 * 100))
            version = random.choice(("1.0.0", "1.1.0", "1.2.0", "2.0.0"))
            properties = shapes[name] | {"app_properties": {"version": version}}
            if name == FAILED:
                detail = {"step_count": random.randrange(20), "trigger": random.choice(("cron", "manual"))}
                properties["event_properties"] = properties["event_properties"] | detail
            file.write(
                line(
                    Event(
                        key=_uuid(),
                        project=PROJECT,
                        event=name,
                        installation=random.choice(people),
                        occurred_at=at,
                        received_at=at,
                        library="direct",
                        library_version="",
                        app_version=version,
                        schema_version=3,
                        schema_hash=SCHEMA.hash[:16],
                        properties=properties,
                    )
                )
            )
    return path


def _median(ask: Callable[[], object]) -> float:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        ask()
        times.append((time.perf_counter() - start) * 1000)
    return sorted(times)[2]


if __name__ == "__main__":
    for name, value in run().items():
        print(f"{name:45} {value:12,.1f}")
