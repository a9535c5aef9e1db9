"""The platform's migrations: its tables, its event types, and its events' columns.

A branch of its own after Clarion's. Write the next revision with
``scripts/migration_manager.sh orchest-api migrate``.
"""

from pathlib import Path

from clarion.migrations.history import History

APP = ("orchest.events",)
"""What declares the platform's events: `CLARION_APP`."""

HISTORY = History(APP, Path(__file__).parent)
"""Clarion's revisions and the platform's; run it with `clarion.migrations.history.upgrade`."""
