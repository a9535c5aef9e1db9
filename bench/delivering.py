"""Deliveries a second: one relay, against bare HTTP clients, and against Celery with `requests`.

*The* bare client is aiohttp with uvloop, the loop one would write oneself; it and the relay run in turns, so
that a noisy machine disturbs both. That of libcurl, which Clarion sends with, is measured too: it tells what
all around a request costs.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime

import aiohttp
import pycurl
import redis
import uvloop
from celery import Celery
from sqlalchemy import Engine

from bench.worlds import World, account, record_for
from clarion.egress import Egress, EgressPolicy
from clarion.relay import Relay

DELIVERIES = 12_000
ROUNDS = 3
CONCURRENCY = 100
CELERY_TASKS = 1_500
CELERY_CHILDREN = 8
REDIS_URL = os.environ.get("CLARION_TEST_REDIS_URL", "redis://127.0.0.1:6379/9")
BODY = b"x" * 1500


def run(world: World, sink: str) -> dict[str, float]:
    """Deliveries a second of one relay: claimed, signed, sent, judged, settled with their attempts."""
    webhooks = [f"{sink}/{n}" for n in range(4)]
    world.webhooks(*webhooks)
    engine = world.relay_engine()
    bare, ours = [], []
    for _ in range(ROUNDS):
        bare.append(DELIVERIES / uvloop.run(bare_client(sink)))
        record_for(world, (account(n) for n in range(DELIVERIES // len(webhooks))))
        ours.append(DELIVERIES / uvloop.run(relay(engine)))
    engine.dispose()
    return {
        "deliver.per_second": statistics.median(ours),
        "deliver.client_per_second": statistics.median(bare),
        "deliver.ratio_to_client": statistics.median(ours) / statistics.median(bare),
    }


async def relay(engine: Engine) -> float:
    """Seconds until all that is due was delivered."""
    async with Egress(EgressPolicy.of(["127.0.0.0/8"])) as egress:
        started = time.perf_counter()
        made = await Relay(engine, egress, clock=lambda: datetime.now(UTC)).drain()
        assert made == DELIVERIES, made
        return time.perf_counter() - started


async def bare_client(sink: str) -> float:
    """Seconds of aiohttp in a loop for as many requests: nothing is read, signed, checked or kept."""
    left = iter(range(DELIVERIES))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def worker() -> None:
            for _ in left:
                async with session.post(f"{sink}/bare", data=BODY) as answer:
                    await answer.read()

        started = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))
        return time.perf_counter() - started


async def bare_libcurl(sink: str) -> float:
    """The same of libcurl."""
    left = iter(range(DELIVERIES))
    async with pycurl.AsyncCurlMulti() as multi:

        async def worker() -> None:
            curl = pycurl.Curl()
            for option, value in ((pycurl.URL, f"{sink}/bare"), (pycurl.POSTFIELDS, BODY)):
                curl.setopt(option, value)
            for _ in left:
                await multi.perform(curl)

        started = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))
        return time.perf_counter() - started


def libcurl_per_second(sink: str) -> float:
    return DELIVERIES / statistics.median(uvloop.run(bare_libcurl(sink)) for _ in range(ROUNDS))


def celery_peer(sink: str) -> float:
    """Deliveries a second of the usual way: one Celery task and one `requests.post` a webhook, over Redis."""
    queue = f"bench-{uuid.uuid4().hex[:8]}"
    environment = {**os.environ, "BENCH_QUEUE": queue, "BENCH_URL": f"{sink}/celery"}
    app = Celery(broker=REDIS_URL)
    app.conf.task_ignore_result = True
    done = redis.Redis.from_url(REDIS_URL)
    worker = subprocess.Popen(
        f"{sys.executable} -m celery -A bench.celery_peer worker -Q {queue} -P prefork -c {CELERY_CHILDREN} "
        "--without-gossip --without-mingle --loglevel ERROR".split(),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        app.send_task("post", queue=queue, args=[queue])
        wait(done, queue, 1)  # the worker is up
        started = time.perf_counter()
        for _ in range(CELERY_TASKS):
            app.send_task("post", queue=queue, args=[queue])
        wait(done, queue, CELERY_TASKS + 1)
        return CELERY_TASKS / (time.perf_counter() - started)
    finally:
        worker.terminate()
        worker.wait(30)
        done.delete(queue, f"{queue}-done")


def wait(done: "redis.Redis", queue: str, count: int) -> None:
    deadline = time.monotonic() + 120
    while int(done.get(f"{queue}-done") or 0) < count:  # type: ignore[arg-type]
        if time.monotonic() > deadline:
            raise TimeoutError("the Celery peer did not finish")
        time.sleep(0.02)
