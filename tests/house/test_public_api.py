"""The public API is what its page says, changes only on purpose, and drags in no extra."""

import subprocess
import sys

import clarion

PUBLIC = [
    "Bucket",
    "Catalogue",
    "ClarionError",
    "DurationBucket",
    "Event",
    "EventType",
    "Never",
    "Pseudonym",
    "Recording",
    "Subscriber",
    "Subscription",
    "Upkeep",
    "Version",
    "delete_subscriber",
    "derived",
    "fact",
    "identity",
    "measure",
    "metadata",
    "open_engine",
    "prepare_sqlite",
    "record",
    "redeliver",
    "replay",
    "subscribe",
    "subscription",
    "who_wants",
]

# not rich: structlog loads it where it happens to be installed
EXTRAS = [
    "celery",
    "duckdb",
    "fastapi",
    "jinja2",
    "psycopg",
    "pycurl",
    "redis",
    "typer",
    "uvicorn",
    "uvloop",
]


def test_the_public_names_are_these() -> None:
    assert clarion.__all__ == PUBLIC
    assert all(getattr(clarion, name) is not None for name in PUBLIC)
    assert set(dir(clarion)) >= set(PUBLIC)


def imported_by(code: str) -> set[str]:
    """The top-level modules a fresh interpreter has loaded after ``code``."""
    script = f"{code}\nimport sys; print(*{{m.split('.')[0] for m in sys.modules}})"
    return set(
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        ).stdout.split()
    )


def test_the_core_imports_no_extra() -> None:
    names = ", ".join(PUBLIC)
    assert not imported_by(f"from clarion import {names}; import clarion.relay, clarion.egress") & set(EXTRAS)


def test_the_package_alone_is_quick_to_import() -> None:
    assert not imported_by("import clarion") & {"sqlalchemy", "pydantic", "structlog", *EXTRAS}
