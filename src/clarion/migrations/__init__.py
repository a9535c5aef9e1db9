"""Clarion's own migrations, and what an application needs to keep them in its own history.

The tables lie on a branch of their own, ``clarion``. An application's revisions are another branch whose
first revision depends on it, so that ``upgrade heads`` brings both up to date, in order::

    # alembic.ini of an application that has its own history already
    version_locations = %(here)s/versions:<the path `clarion migrations path` prints>

    # its env.py
    from clarion import migrations
    context.configure(connection=connection, **migrations.options([Base.metadata], app=["shop.events"]))

An application without Alembic of its own needs none of this: ``clarion migrate`` and
``clarion migrations revision`` know where its revisions lie (`clarion.settings`).

Where Clarion's own environment runs the migrations, versions are kept in the table ``clarion_version``
and not in Alembic's ``alembic_version``: the application's database may hold that one for a history that
knows nothing of Clarion, and Alembic refuses a table with revisions it cannot find. Branches that depend
on each other share one table; an application that takes Clarion into its own history keeps its own.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import MetaData

VERSIONS = Path(__file__).parent / "versions"
"""Clarion's own revisions: one of an application's ``version_locations``."""

BRANCH = "clarion"
"""The label of the branch they lie on."""

VERSION_TABLE = "clarion_version"
"""Where versions are kept, unless an application's own environment says otherwise."""


class Targets(list[MetaData]):
    """Several MetaData for autogenerate, with the first one's naming convention.

    Alembic names what a type brings along (the CHECK of an Enum) by the convention of its target, and a
    plain list has none.
    """

    @property
    def naming_convention(self) -> Any:
        return self[0].naming_convention


def options(metadata: Iterable[MetaData] = (), *, app: Iterable[str] = ()) -> dict[str, Any]:
    """The keywords for Alembic's ``context.configure`` that make autogenerate understand Clarion.

    ``metadata`` are the application's own; Clarion's is added unless its tables were copied into one of
    them (``Table.to_metadata``). ``app`` are the modules that declare event classes; import them first.
    """
    from clarion import database
    from clarion.migrations import plugin
    from clarion.migrations.declared import declared

    wanted = declared(app)
    hosts = list(metadata)
    copied = any("events" in one.tables for one in hosts)
    return {
        "target_metadata": Targets(hosts if copied else [*hosts, database.metadata]),
        "include_object": plugin.only_declared(wanted),
        "render_item": plugin.render_item,
        "compare_type": plugin.compare_type,
        "render_as_batch": True,
        "process_revision_directives": plugin.plainly,
        plugin.DECLARED: wanted,
    }


def run(
    metadata: Sequence[MetaData] = (), *, app: Sequence[str] = (), version_table: str = VERSION_TABLE
) -> None:
    """All of an ``env.py``: run the migrations that were asked for, by ``clarion`` or by Alembic itself.

    ``clarion`` says which modules are the application's, and which database is meant; where Alembic was
    called it is ``app`` and ``CLARION_DATABASE_URL``.
    """
    from clarion.migrations.environment import run_migrations

    run_migrations(metadata, app, version_table)


__all__ = ["BRANCH", "VERSIONS", "VERSION_TABLE", "options", "run"]
