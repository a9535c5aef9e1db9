"""A client of the platform's API: one call, JSON in and out, and waiting for what the platform does."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import OpenerDirector, ProxyHandler, Request, build_opener

TIMEOUT = 30.0
"""Seconds one call may take."""
LOOK = 0.1
"""Seconds between two looks at something that is awaited."""


class CallFailed(Exception):
    """The platform refused a call, in its own words. ``status`` is what it answered."""

    def __init__(self, method: str, path: str, status: int, said: str) -> None:
        super().__init__(f"{method} {path} was answered {status}: {said}")
        self.status = status


class Overdue(Exception):
    """Something that was awaited did not come in time; says what, and what there was instead."""


class Client:
    """Calls one platform. Safe to share between threads. Never goes through a proxy."""

    def __init__(self, base_url: str, token: str | None = None, *, timeout: float = TIMEOUT) -> None:
        self.base_url = base_url.rstrip("/")
        self.timeout = timeout
        self._headers = {} if token is None else {"authorization": f"Bearer {token}"}
        self._given_up = threading.Event()
        self._opener: OpenerDirector = build_opener(ProxyHandler({}))

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """What the platform answers, decoded; None for an answer without a body.

        Raises:
            CallFailed: it answered with an error.
            OSError: it did not answer.
        """
        data = None if body is None else json.dumps(body).encode()
        headers = self._headers | ({} if data is None else {"content-type": "application/json"})
        request = Request(self.base_url + path, data, headers, method=method)  # noqa: S310
        try:
            with self._opener.open(request, timeout=self.timeout) as answer:
                found = answer.read()
        except HTTPError as error:
            with error:
                raise CallFailed(method, path, error.code, error.read().decode("utf-8", "replace")) from None
        return json.loads(found) if found else None

    def get(self, path: str, **query: Any) -> Any:
        return self.call("GET", path + (f"?{urlencode(query)}" if query else ""))

    def post(self, path: str, body: Any = None) -> Any:
        return self.call("POST", path, body)

    def patch(self, path: str, body: Any) -> Any:
        return self.call("PATCH", path, body)

    def put(self, path: str, body: Any) -> Any:
        return self.call("PUT", path, body)

    def delete(self, path: str) -> None:
        self.call("DELETE", path)

    def pages(self, path: str, **query: Any) -> Iterator[Any]:
        """Every item of a list, page by page."""
        cursor: dict[str, str] = {}
        for _ in range(1000):
            page = self.get(path, **query, **cursor)
            yield from page["items"]
            if page["next"] is None:
                return
            cursor = {"cursor": page["next"]}

    def page_status(self, url: str) -> int:
        """The status a page of the platform is answered with."""
        request = Request(url, headers=self._headers | {"accept": "text/html"})  # noqa: S310
        try:
            with self._opener.open(request, timeout=self.timeout) as answer:
                return int(answer.status)
        except HTTPError as error:
            error.close()
            return error.code

    def until(
        self, path: str, holds: Callable[[Any], Any], what: str, seconds: float = 60, **query: Any
    ) -> Any:
        """What is at ``path`` once ``holds`` of it; an unknown path is looked at as None.

        Raises:
            Overdue: it did not within ``seconds``, or the waiting was given up.
        """
        end = time.monotonic() + seconds
        while True:
            found = self._look(path, query)
            if holds(found):
                return found
            if time.monotonic() >= end:
                raise Overdue(f"{what}: not within {seconds:g} s; there is {json.dumps(found)[:1000]}")
            if self._given_up.wait(LOOK):
                raise Overdue(f"{what}: given up")

    def give_up(self) -> None:
        """End what waits, in other threads, and let nothing wait any more."""
        self._given_up.set()

    def _look(self, path: str, query: Mapping[str, Any]) -> Any:
        try:
            return self.get(path, **query)
        except CallFailed as error:
            if error.status != 404:
                raise
            return None
