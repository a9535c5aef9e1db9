"""The Alembic plug-in: autogenerate sees event types, and only the columns that the application declares.

Importing it registers it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from alembic.autogenerate import comparators, renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrateOperation
from alembic.operations.ops import (
    AddColumnOp,
    CreateIndexOp,
    DropColumnOp,
    DropIndexOp,
    MigrationScript,
    ModifyTableOps,
    UpgradeOps,
)
from alembic.runtime.migration import MigrationContext
from sqlalchemy.types import TypeEngine

from clarion.database import UTCDateTime
from clarion.migrations import event_types
from clarion.migrations.declared import SHARED, Declared
from clarion.migrations.event_types import (
    EventTypesOp,
    add_event_types,
    changes,
    describe_event_types,
    remove_event_types,
)

DECLARED = "clarion_declared"
"""The option of ``context.configure`` under which `options` hands over what the application declares."""


@renderers.dispatch_for(EventTypesOp)
def render_event_types(context: AutogenContext, op: EventTypesOp) -> list[str]:
    context.imports.add(f"from {event_types.__name__} import {op.function}")
    lines = [f"    {name!r}: {said!r}," for name, said in op.types.items()]
    return [f"{op.function}({{", *lines, "})"]


@comparators.dispatch_for("schema")
def compare_event_types(context: AutogenContext, upgrade: UpgradeOps, _schemas: Any) -> None:
    """What must happen to ``event_types`` for it to say what the application declares."""
    wanted: Declared | None = context.opts.get(DECLARED)
    connection = context.connection
    if wanted is None or connection is None or not sa.inspect(connection).has_table("event_types"):
        return
    table = event_types.TABLE
    rows = connection.execute(sa.select(table.c.name, table.c.description))
    upgrade.ops.extend(changes({row.name: row.description for row in rows}, wanted.event_types))


def only_declared(wanted: Declared) -> Callable[..., bool]:
    """An ``include_object``: of the tables Clarion shares, only the columns that were declared.

    A process may have imported more event classes than the application's (a test does).
    """

    def include(thing: Any, name: str | None, kind: str, reflected: bool, _other: Any) -> bool:
        if kind != "column" or reflected or thing.table.name not in SHARED:
            return True
        return name in wanted.columns[thing.table.name]

    return include


def render_item(kind: str, item: Any, context: AutogenContext) -> str | bool:
    """A ``render_item`` that writes Clarion's own column types; False leaves an item to Alembic."""
    if kind != "type":
        return False
    if isinstance(item, UTCDateTime):
        context.imports.add("from clarion.database import UTCDateTime")
        return "UTCDateTime()"
    if isinstance(item, sa.JSON) and item.none_as_null:
        return "sa.JSON(none_as_null=True)"
    return False


def compare_type(
    context: MigrationContext,
    _inspected: Any,
    _column: Any,
    found: TypeEngine[Any],
    wanted: TypeEngine[Any],
) -> bool | None:
    """A ``compare_type``: types that a dialect only stores otherwise are no difference; None asks Alembic."""
    if isinstance(wanted, UTCDateTime):
        text = context.dialect.name == "sqlite"
        return not (isinstance(found, sa.String) if text else getattr(found, "timezone", False))
    return None


class SharedTableOps(ModifyTableOps):
    """What happens to a shared table in batch mode: a copy must go on counting ids up, never using one twice.

    SQLite's AUTOINCREMENT is nothing that can be reflected.
    """


@renderers.dispatch_for(SharedTableOps)
def render_shared_table(context: AutogenContext, op: SharedTableOps) -> list[str]:
    usual = ModifyTableOps(op.table_name, ops=op.ops, schema=op.schema)
    first, *rest = renderers.dispatch(usual)(context, usual)
    return [first.replace(") as ", ", table_kwargs={'sqlite_autoincrement': True}) as "), *rest]


def plainly(_context: Any, _revision: Any, directives: list[MigrationScript]) -> None:
    """Write indexes, and columns of the shared tables, as plain statements and without batch mode.

    On SQLite batch mode copies a whole table to drop one column; ``events`` is too large for that, and
    SQLite drops a column by itself.
    """
    for container in [c for s in directives for c in (*s.upgrade_ops_list, *s.downgrade_ops_list)]:
        container.ops = [one for op in container.ops for one in written_as(op)]


def written_as(op: MigrateOperation) -> Sequence[MigrateOperation]:
    if not isinstance(op, ModifyTableOps):
        return [op]
    shared = op.table_name in SHARED
    columns = (AddColumnOp, DropColumnOp) if shared else ()
    if all(isinstance(one, (CreateIndexOp, DropIndexOp, *columns)) for one in op.ops):
        return op.ops
    return [SharedTableOps(op.table_name, ops=op.ops, schema=op.schema) if shared else op]


SENTENCES: Mapping[str, Callable[..., str]] = {
    add_event_types.__name__: lambda types: f"event types without a row: {', '.join(types)}",
    describe_event_types.__name__: lambda types: f"event types described otherwise: {', '.join(types)}",
    remove_event_types.__name__: lambda types: (
        f"rows of event types that nothing declares: {', '.join(types)}"
    ),
    "add_table": lambda table: f"no table {table.name}",
    "remove_table": lambda table: f"a table {table.name} that nothing declares",
    "add_column": lambda _schema, table, column: f"no column {table}.{column.name}",
    "remove_column": lambda _schema, table, column: f"a column {table}.{column.name} that nothing declares",
    "add_index": lambda index: f"no index {index.name} of {index.table.name}",
    "remove_index": lambda index: f"an index {index.name} of {index.table.name} that nothing declares",
    "modify_type": lambda _schema, table, column, _options, found, wanted: (
        f"{table}.{column} is {found}, not {wanted}"
    ),
    "modify_nullable": lambda _schema, table, column, _options, _found, wanted: (
        f"{table}.{column} must {'' if wanted else 'not '}be nullable"
    ),
}


def describe_difference(diff: Any) -> str:
    """One of Alembic's differences as a sentence."""
    if isinstance(diff, list):  # what differs in one column
        return "; ".join(describe_difference(one) for one in diff)
    kind, *rest = diff
    if kind in SENTENCES:
        return SENTENCES[kind](*rest)
    return f"{kind.replace('_', ' ')}: {', '.join(str(getattr(one, 'name', one)) for one in rest)}"
