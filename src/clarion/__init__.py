"""Clarion: transactional events, notifications and anonymous telemetry for self-hosted applications."""

__version__ = "0.1.0"
