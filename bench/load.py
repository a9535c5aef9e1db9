"""A generator of HTTP requests over connections kept alive, which costs almost nothing itself."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Answers:
    """How many a second came, how many milliseconds each took, in order of size, and how many were a 503."""

    per_second: float
    times: list[float]
    refused: int

    def percentile(self, share: float) -> float:
        return self.times[int(len(self.times) * share)]


async def load(
    port: int, request: Callable[[], bytes], *, connections: int, seconds: float, rate: float = 0
) -> Answers:
    """Send what ``request`` makes, as fast as answers come or at a ``rate`` a second.

    A connection sends one request at a time: at a rate, an answer that takes longer than
    ``connections / rate`` seconds delays the next.

    Raises:
        RuntimeError: an answer that is neither 200 nor 503.
    """
    times: list[float] = []
    statuses: Counter[bytes] = Counter()
    started = time.perf_counter()

    async def client(place: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        due = started + (place / rate if rate else 0)
        while max(due, time.perf_counter()) < started + seconds:
            if rate:
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                due += connections / rate
            written = request()
            start = time.perf_counter()
            writer.write(written)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            times.append((time.perf_counter() - start) * 1000)
            statuses[answer[9:12]] += 1
            if answer[9:12] not in (b"200", b"503"):
                raise RuntimeError((answer + body).decode("latin-1"))
        writer.close()

    await asyncio.gather(*(client(place) for place in range(connections)))
    return Answers(len(times) / (time.perf_counter() - started), sorted(times), statuses[b"503"])


def post(path: str, body: bytes, *headers: str) -> bytes:
    """The bytes of a request with a JSON body."""
    lines = [f"POST {path} HTTP/1.1", "host: x", "content-type: application/json", *headers]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body
