"""A collector in a process of its own: ``python -m tests.clarion.collector.serving DATA [SECONDS]``.

Prints the port it listens on as its first line.
"""

import sys
from pathlib import Path

from clarion.collector.access import AccessToken
from clarion.collector.keys import WriteKey
from clarion.collector.server import serve
from clarion.collector.service import Settings
from clarion.engines import relax_gc
from tests.clarion.collector.sample import GUEST, KEY, PROJECT, SCHEMA, TOKEN


def main(data: str, segment_seconds: str = "0.1") -> None:
    settings = Settings(
        Path(data),
        SCHEMA,
        (WriteKey.of(PROJECT, KEY),),
        (AccessToken.of(TOKEN), AccessToken.of(GUEST, "guest")),
        administrators=frozenset({"default"}),
        events_per_second=1e6,
        burst=1e6,
        segment_seconds=float(segment_seconds),
    )

    def listening(port: int) -> None:
        relax_gc()  # as `clarion collector serve` does
        print(port, flush=True)

    serve(settings, port=0, listening=listening)


if __name__ == "__main__":
    main(*sys.argv[1:])
