"""The shared analytics module, with the platform's own types."""

from typing import TYPE_CHECKING

from clarion.analytics import TelemetryData, enumeration, send_event
from orchest.events import CATALOGUE

if TYPE_CHECKING:
    from typing import Any

    Event: Any

Event = enumeration(CATALOGUE)
"""The platform's event types: ``Event.PROJECT_PIPELINE_SAVED``."""

__all__ = ["Event", "TelemetryData", "send_event"]
