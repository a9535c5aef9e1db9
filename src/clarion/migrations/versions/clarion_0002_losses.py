"""What telemetry lost, by reason; whether the installation's id was given.

Revision clarion_0002 of 2026-11-24, after clarion_0001.
"""

import sqlalchemy as sa
from alembic import op

from clarion.database import UTCDateTime

revision = "clarion_0002"
down_revision = "clarion_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "telemetry_losses",
        sa.Column("reason", sa.String(length=16), nullable=False),
        sa.Column("lost", sa.BigInteger(), nullable=False),
        sa.Column("reported", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("reason", name=op.f("pk_telemetry_losses")),
    )
    op.execute(
        "INSERT INTO telemetry_losses (reason, lost) "
        "SELECT 'queue_full', dropped FROM telemetry_state WHERE dropped > 0"
    )
    op.add_column("telemetry_state", sa.Column("reported_at", UTCDateTime(), nullable=True))
    op.add_column(
        "telemetry_state", sa.Column("given", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    )
    op.drop_column("telemetry_state", "dropped")


def downgrade() -> None:
    op.add_column(
        "telemetry_state",
        sa.Column("dropped", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
    )
    op.execute(
        "UPDATE telemetry_state SET dropped = COALESCE("
        "(SELECT lost FROM telemetry_losses WHERE reason = 'queue_full'), 0)"
    )
    op.drop_column("telemetry_state", "given")
    op.drop_column("telemetry_state", "reported_at")
    op.drop_table("telemetry_losses")
