# ruff: noqa: E501
"""Events, types, subscribers, the outbox, telemetry's state.

Revision clarion_0001 of 2026-11-24, after nothing.
"""

import sqlalchemy as sa
from alembic import op

from clarion.database import UTCDateTime

revision = "clarion_0001"
down_revision = None
branch_labels = ("clarion",)
depends_on = None


def upgrade() -> None:
    op.create_table(
        "captures",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("uuid", sa.Uuid(), nullable=False),
        sa.Column("type", sa.String(length=255), nullable=False),
        sa.Column("occurred_at", UTCDateTime(), nullable=False),
        sa.Column("telemetry", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_captures")),
        sa.UniqueConstraint("uuid", name=op.f("uq_captures_uuid")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_captures_occurred_at", "captures", ["occurred_at"], unique=False)
    op.create_table(
        "event_types",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_event_types")),
    )
    op.create_table(
        "events",
        sa.Column(
            "sequence",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("uuid", sa.Uuid(), nullable=False),
        sa.Column("type", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=255), nullable=False),
        sa.Column("scope", sa.String(length=1024), nullable=False),
        sa.Column("occurred_at", UTCDateTime(), nullable=False),
        sa.Column("notification", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("telemetry", sa.JSON(none_as_null=True), nullable=True),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_events")),
        sa.UniqueConstraint("uuid", name=op.f("uq_events_uuid")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_occurred_at", "events", ["occurred_at"], unique=False)
    op.create_index("ix_events_scope", "events", ["scope", "sequence"], unique=False)
    op.create_index("ix_events_type", "events", ["type", "sequence"], unique=False)
    op.create_table(
        "telemetry_state",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("installation", sa.Uuid(), nullable=False),
        sa.Column("key", sa.LargeBinary(length=32), nullable=False),
        sa.Column("renewed_at", UTCDateTime(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=True),
        sa.Column("notice", sa.Integer(), nullable=True),
        sa.Column("notice_at", UTCDateTime(), nullable=True),
        sa.Column("backend", sa.String(length=16), nullable=False),
        sa.Column("url", sa.String(length=2048), nullable=False),
        sa.Column("write_key", sa.String(length=255), nullable=False),
        sa.Column("app", sa.JSON(), nullable=False),
        sa.Column("system", sa.JSON(), nullable=False),
        sa.Column("dropped", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("(notice IS NULL) = (notice_at IS NULL)", name=op.f("ck_telemetry_state_notice")),
        sa.CheckConstraint("id = 1", name=op.f("ck_telemetry_state_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_telemetry_state")),
    )
    op.create_table(
        "deliveries",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("event_sequence", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("capture_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("subscriber_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("state", sa.String(length=16), server_default="pending", nullable=False),
        sa.Column("due_at", UTCDateTime(), nullable=False),
        sa.Column("lease_token", sa.Uuid(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("round", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("finished_at", UTCDateTime(), nullable=True),
        sa.CheckConstraint(
            "(finished_at IS NULL) = (state = 'pending')", name=op.f("ck_deliveries_finished")
        ),
        sa.CheckConstraint("lease_token IS NULL OR state = 'pending'", name=op.f("ck_deliveries_lease")),
        sa.CheckConstraint(
            "state IN ('pending', 'delivered', 'dead', 'cancelled')", name=op.f("ck_deliveries_state")
        ),
        sa.CheckConstraint(
            "(event_sequence IS NULL) <> (capture_id IS NULL)", name=op.f("ck_deliveries_subject")
        ),
        sa.ForeignKeyConstraint(
            ["capture_id"], ["captures.id"], name=op.f("fk_deliveries_capture_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["event_sequence"],
            ["events.sequence"],
            name=op.f("fk_deliveries_event_sequence"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
        sa.UniqueConstraint(
            "capture_id", "subscriber_id", name=op.f("uq_deliveries_capture_id_subscriber_id")
        ),
        sa.UniqueConstraint(
            "event_sequence", "subscriber_id", name=op.f("uq_deliveries_event_sequence_subscriber_id")
        ),
        postgresql_with={
            "autovacuum_vacuum_scale_factor": "0",
            "autovacuum_vacuum_threshold": "5000",
            "autovacuum_vacuum_cost_delay": "0",
        },
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_deliveries_due",
        "deliveries",
        ["subscriber_id", "due_at", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'pending'"),
        sqlite_where=sa.text("state = 'pending'"),
    )
    op.create_index("ix_deliveries_finished_at", "deliveries", ["finished_at"], unique=False)
    op.create_index(
        "ix_deliveries_unfinished",
        "deliveries",
        ["state", "id"],
        unique=False,
        postgresql_where=sa.text("state IN ('dead', 'cancelled')"),
        sqlite_where=sa.text("state IN ('dead', 'cancelled')"),
    )
    op.create_table(
        "subscribers",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("uuid", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("owner", sa.String(length=1024), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("reads", sa.String(length=16), nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("retry_schedule", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("telemetry_state_id", sa.Integer(), nullable=True),
        sa.Column("url", sa.String(length=2048), nullable=True),
        sa.Column("secret", sa.String(length=255), nullable=True),
        sa.Column("format", sa.String(length=32), nullable=True),
        sa.Column("content_type", sa.String(length=64), nullable=True),
        sa.Column("verify_ssl", sa.Boolean(), nullable=True),
        sa.Column("timeout", sa.Float(), nullable=True),
        sa.CheckConstraint(
            "kind <> 'webhook' OR (url IS NOT NULL AND secret IS NOT NULL AND format IS NOT NULL AND content_type IS NOT NULL AND verify_ssl IS NOT NULL AND timeout IS NOT NULL)",
            name=op.f("ck_subscribers_webhook"),
        ),
        sa.CheckConstraint("reads IN ('notification', 'telemetry')", name=op.f("ck_subscribers_reads")),
        sa.ForeignKeyConstraint(
            ["telemetry_state_id"], ["telemetry_state.id"], name=op.f("fk_subscribers_telemetry_state_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_subscribers")),
        sa.UniqueConstraint("uuid", name=op.f("uq_subscribers_uuid")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "attempts",
        sa.Column("delivery_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("started_at", UTCDateTime(), nullable=False),
        sa.Column("duration_ms", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("reason", sa.String(length=16), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("headers", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("truncated", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.CheckConstraint("(reason IS NULL) = (outcome = 'delivered')", name=op.f("ck_attempts_reason")),
        sa.CheckConstraint("outcome IN ('delivered', 'retry', 'dead')", name=op.f("ck_attempts_outcome")),
        sa.ForeignKeyConstraint(
            ["delivery_id"], ["deliveries.id"], name=op.f("fk_attempts_delivery_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("delivery_id", "number", name=op.f("pk_attempts")),
    )
    op.create_table(
        "subscriptions",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("subscriber_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("pattern", sa.String(length=255), nullable=False),
        sa.Column("scope", sa.String(length=1024), nullable=False),
        sa.ForeignKeyConstraint(
            ["subscriber_id"],
            ["subscribers.id"],
            name=op.f("fk_subscriptions_subscriber_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_subscriptions")),
        sa.UniqueConstraint(
            "subscriber_id", "pattern", "scope", name=op.f("uq_subscriptions_subscriber_id_pattern_scope")
        ),
    )
    op.create_index(
        "ix_subscriptions_match", "subscriptions", ["pattern", "scope", "subscriber_id"], unique=False
    )


def downgrade() -> None:
    op.drop_index("ix_subscriptions_match", table_name="subscriptions")
    op.drop_table("subscriptions")
    op.drop_table("attempts")
    op.drop_table("subscribers")
    op.drop_index(
        "ix_deliveries_unfinished",
        table_name="deliveries",
        postgresql_where=sa.text("state IN ('dead', 'cancelled')"),
        sqlite_where=sa.text("state IN ('dead', 'cancelled')"),
    )
    op.drop_index("ix_deliveries_finished_at", table_name="deliveries")
    op.drop_index(
        "ix_deliveries_due",
        table_name="deliveries",
        postgresql_where=sa.text("state = 'pending'"),
        sqlite_where=sa.text("state = 'pending'"),
    )
    op.drop_table("deliveries")
    op.drop_table("telemetry_state")
    op.drop_index("ix_events_type", table_name="events")
    op.drop_index("ix_events_scope", table_name="events")
    op.drop_index("ix_events_occurred_at", table_name="events")
    op.drop_table("events")
    op.drop_table("event_types")
    op.drop_index("ix_captures_occurred_at", table_name="captures")
    op.drop_table("captures")
