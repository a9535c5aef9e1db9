"""A receiver that costs almost nothing: ``python -m bench.sink``. It answers 204 and keeps when what came.

``GET /arrivals`` tells ``{webhook-id: CLOCK_MONOTONIC ns}`` and forgets them; a POST below ``/hang`` is never
answered. The monotonic clock is one for all processes of a Linux machine, so times can be compared.
"""

import asyncio
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
WEBHOOK_ID = re.compile(rb"webhook-id: *(\S+)", re.IGNORECASE)
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"

arrivals: dict[str, int] = {}


class Sink(asyncio.Protocol):
    def __init__(self) -> None:
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end]
            length = LENGTH.search(head)
            size = end + 4 + (int(length[1]) if length else 0)
            if len(self.buffer) < size:
                return
            self.buffer = self.buffer[size:]
            self.answer(head)

    def answer(self, head: bytes) -> None:
        if head.startswith(b"GET /arrivals"):
            body = json.dumps(arrivals).encode()
            arrivals.clear()
            self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        elif not head.startswith(b"POST /hang"):
            if found := WEBHOOK_ID.search(head):
                arrivals.setdefault(found[1].decode(), time.monotonic_ns())
            self.transport.write(NO_CONTENT)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # ends with its parent


@contextmanager
def running() -> Iterator[str]:
    """A sink in a process of its own; gives its base URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.sink"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.communicate()


def take_arrivals(url: str) -> dict[str, int]:
    with urllib.request.urlopen(f"{url}/arrivals", timeout=30) as answer:
        found: dict[str, int] = json.load(answer)
        return found


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve())
