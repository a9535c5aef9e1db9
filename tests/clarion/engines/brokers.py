"""RabbitMQ and Redis for the tests: a queue of the test's own, and nothing left of it afterwards."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from kombu.connection import Connection

AMQP = os.environ.get("CLARION_TEST_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672//")
REDIS = os.environ.get("CLARION_TEST_REDIS_URL", "redis://127.0.0.1:6379/11")


def connect(url: str) -> Any:
    return Connection(url, connect_timeout=3)  # type: ignore[no-untyped-call]


@contextmanager
def queue_on(url: str) -> Iterator[str]:
    """The name of a queue that is removed in the end; skips the test where no broker answers."""
    try:
        with connect(url) as connection:
            connection.ensure_connection(max_retries=1, timeout=3)
    except Exception as error:
        pytest.skip(f"no broker at {url}: {error}")
    queue = f"clarion-test-{uuid.uuid4().hex[:12]}"
    try:
        yield queue
    finally:
        if url.startswith("amqp"):
            with connect(url) as connection, connection.channel() as channel:
                channel.queue_delete(queue)
                channel.exchange_delete(queue)
        else:
            forget_on_redis(url, queue)


def forget_on_redis(url: str, queue: str) -> None:
    """Every key that names the queue, and what killed workers had taken from it."""
    with redis.Redis.from_url(url) as client:
        keys = list(client.scan_iter(f"*{queue}*"))
        if keys:
            client.delete(*keys)
        for tag, message in list(client.hscan_iter("unacked")):
            if queue.encode() in message:
                client.hdel("unacked", tag)
                client.zrem("unacked_index", tag)
