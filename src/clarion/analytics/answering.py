"""PostgreSQL for who cannot wait: connections that end when the server does not answer in time.

libpq and psycopg wait without an end for the answer to a statement. The server's own limit helps only where
the server still runs, and one that accepts connections may not.
"""

import time
from collections.abc import Generator
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import URL

from clarion.database import open_engine

CONNECT_WITHIN = 2
"""Seconds to connect: the least that libpq takes."""

ANSWERS_WITHIN = 1.0
"""Seconds that whoever takes a connection may wait for the server in all, and for one that is free."""


class NoAnswer(psycopg.OperationalError):
    """The server did not answer in time; the connection was closed."""


class Impatient(psycopg.Connection[Any]):
    """A connection that closes when a wait goes on after ``until``, by `time.monotonic`."""

    until = float("inf")

    def wait(self, gen: Generator[Any, Any, Any], *arguments: Any, **keywords: Any) -> Any:
        try:
            return super().wait(self._within(gen), *arguments, **keywords)
        except NoAnswer:
            self.close()
            raise

    def _within(self, waiting: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """The same steps; psycopg goes on with one several times a second, also when nothing came."""
        try:
            wanted = next(waiting)
            while True:
                ready = yield wanted
                wanted = waiting.send(ready)
                if time.monotonic() > self.until:
                    raise NoAnswer(f"PostgreSQL did not answer within {ANSWERS_WITHIN:g} s")
        except StopIteration as end:
            return end.value


def open_impatient(url: URL) -> Engine:
    """An engine for ``url`` on which nothing takes longer than `CONNECT_WITHIN` and `ANSWERS_WITHIN`."""
    engine = open_engine(url, pool_timeout=ANSWERS_WITHIN, connect_args={"connect_timeout": CONNECT_WITHIN})

    @event.listens_for(engine, "do_connect")
    def on_connect(_dialect: Any, _record: Any, arguments: Any, keywords: Any) -> Impatient:
        connection = Impatient.connect(*arguments, **keywords)
        allow(connection)
        return connection

    @event.listens_for(engine, "checkout")
    def allow(connection: Any, *_: Any) -> None:
        connection.until = time.monotonic() + ANSWERS_WITHIN

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        # for the server: it would go on with what nobody waits for any more, and hold a connection for it
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {int(ANSWERS_WITHIN * 1000)}")

    return engine
