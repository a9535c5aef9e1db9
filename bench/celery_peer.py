"""The peer: a Celery task that posts one webhook with `requests`, as tutorials do."""

import os

import redis
import requests
from celery import Celery

REDIS_URL = os.environ.get("CLARION_TEST_REDIS_URL", "redis://127.0.0.1:6379/9")

app = Celery("peer", broker=REDIS_URL)
app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)
session = requests.Session()
count = redis.Redis.from_url(REDIS_URL)


@app.task(name="post")
def post(queue: str) -> None:
    session.post(os.environ["BENCH_URL"], data=b"x" * 1500, timeout=15).raise_for_status()
    count.incr(f"{queue}-done")
