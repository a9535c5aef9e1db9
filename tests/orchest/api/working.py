"""Workers beside a client of the API, and waiting for what they do."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.testclient import TestClient

from orchest.platform import Platform, Worker
from tests.orchest.building import eventually


@contextmanager
def working(platform: Platform, *workers: Worker) -> Iterator[None]:
    """The workers run in the body, and are nudged by the API as in the application."""
    platform.workers = list(workers)
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        for worker in workers:
            worker.stop()


def wait_for(client: TestClient, path: str, **fields: Any) -> Any:
    """What is at ``path`` once it has these values."""
    last: list[Any] = [None]

    def there() -> bool:
        last[0] = client.get(path).json()
        return all(last[0].get(name) == value for name, value in fields.items())

    try:
        eventually(there, f"{path} has {fields}", 30)
    except AssertionError:
        raise AssertionError(f"{path} never had {fields}; last: {last[0]}") from None
    return last[0]
