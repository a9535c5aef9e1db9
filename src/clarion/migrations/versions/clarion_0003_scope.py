"""The index of scopes serves prefixes on PostgreSQL, whatever the database's collation.

Revision clarion_0003 of 2026-11-24, after clarion_0002.
"""

from alembic import op

revision = "clarion_0003"
down_revision = "clarion_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    make({"scope": "varchar_pattern_ops"})


def downgrade() -> None:
    make({})


def make(operators: dict[str, str]) -> None:
    """The index anew, with these operator classes. Writers wait while it is made."""
    if op.get_context().dialect.name == "postgresql":
        op.drop_index("ix_events_scope", table_name="events")
        op.create_index("ix_events_scope", "events", ["scope", "sequence"], postgresql_ops=operators)
