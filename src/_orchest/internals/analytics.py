"""The shared analytics module, under the name it always had.

from _orchest.internals import analytics

analytics.send_event(
    app,
    analytics.Event.HEARTBEAT_TRIGGER,
    analytics.TelemetryData(event_properties={"active": active}, derived_properties={}),
)
"""

from orchest.analytics import Event, TelemetryData, send_event

__all__ = ["Event", "TelemetryData", "send_event"]
