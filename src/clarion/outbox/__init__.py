"""The outbox: record, claim, settle; and what an operator does by hand."""

from clarion.outbox.leases import LEASE, Claim, Claimed, Recipient, Settlement
from clarion.outbox.leasing import claim, release
from clarion.outbox.managing import cancel_deliveries, delete_subscriber, redeliver, replay
from clarion.outbox.recording import DEFAULT, Recording, record
from clarion.outbox.settling import UNWRITABLE, settle, settle_apart
from clarion.outbox.tables import Attempt, Capture, Delivery

__all__ = [
    "DEFAULT",
    "LEASE",
    "UNWRITABLE",
    "Attempt",
    "Capture",
    "Claim",
    "Claimed",
    "Delivery",
    "Recipient",
    "Recording",
    "Settlement",
    "cancel_deliveries",
    "claim",
    "delete_subscriber",
    "record",
    "redeliver",
    "release",
    "replay",
    "settle",
    "settle_apart",
]
