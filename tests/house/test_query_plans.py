"""Every index names its query, and PostgreSQL uses it for that query: the statements are those that run."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.orm import Session

from clarion.database import Base
from clarion.retention import Kept, prune
from orchest.api.deliveries import list_deliveries, list_events
from orchest.api.paging import Paging
from orchest.web.views import recent_events
from tests.clarion.test_outbox_claim_settle import NOW, large, plan, uses

DAY = timedelta(days=1)
assert large  # the fixture below stands on it


@pytest.fixture(scope="module")
def used(large: Engine) -> Engine:
    """The large tables, with captures and a few dead deliveries."""
    with large.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO captures (uuid, type, occurred_at, telemetry)"
                " SELECT gen_random_uuid(), 'view:loaded', :now, '{}' FROM generate_series(1, 20000)"
            ),
            {"now": NOW},
        )
        connection.execute(text("UPDATE deliveries SET state = 'dead' WHERE id <= 20"))
    with large.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    return large


def page() -> Paging:
    return Paging(limit=50, cursor=None)


def events_of(engine: Engine, scope: str) -> Any:
    with Session(engine) as session:
        return recent_events(session, scope)


STATEMENTS: dict[str, Callable[[Engine], Any]] = {
    "ix_events_type": lambda e: list_events(page(), lambda: Session(e), type="project:created"),
    "ix_events_scope": lambda e: events_of(e, "project/p1"),
    "ix_events_occurred_at": lambda e: prune(e, NOW, Kept(events=DAY)),
    "ix_captures_occurred_at": lambda e: prune(e, NOW, Kept(captures=DAY)),
    "ix_deliveries_unfinished": lambda e: list_deliveries(page(), lambda: Session(e), state="dead"),
    "ix_deliveries_finished_at": lambda e: prune(e, NOW, Kept(deliveries=DAY)),
}
"""What each index is there for: the function of ours that asks."""


@pytest.mark.parametrize("index", STATEMENTS)
def test_an_index_is_used_by_the_statement_it_is_there_for(used: Engine, index: str) -> None:
    ran: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        ran.append((statement, parameters))

    event.listen(used, "before_cursor_execute", note)
    try:
        STATEMENTS[index](used)
    finally:
        event.remove(used, "before_cursor_execute", note)
    plans = [uses(plan(used, *one)) for one in ran if one[0].lstrip().startswith("SELECT")]
    assert [one for one in plans if index in one], plans


def test_every_index_of_the_library_has_its_query() -> None:
    mapped = [m.local_table for m in Base.registry.mappers if m.class_.__module__.startswith("clarion.")]
    indexes = {str(index.name) for table in mapped for index in table.indexes}
    elsewhere = {
        "ix_deliveries_due",
        "ix_subscriptions_match",
    }  # of claim and record, beside their statements
    assert indexes == STATEMENTS.keys() | elsewhere
