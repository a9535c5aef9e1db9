"""Whether anybody uses the platform: what the heartbeat says of it, and nothing else is kept."""

from starlette.types import ASGIApp, Receive, Scope, Send

UNUSED = ("/static/", "/healthz", "/readyz", "/metrics", "/login", "/telemetry", "/api/telemetry/preview")
"""What machines ask for by themselves, or what is no use of the platform."""


class Usage:
    """A flag between the requests of this process and its heartbeat. Any thread may use it."""

    def __init__(self) -> None:
        self._used = False

    def note(self) -> None:
        """The platform was used."""
        self._used = True

    def taken(self) -> bool:
        """Whether it was used since this was last asked."""
        used, self._used = self._used, False
        return used


class NoteUsage:
    """The ASGI middleware that notes requests to the API and for pages. Inside of what refuses requests."""

    def __init__(self, app: ASGIApp, usage: Usage) -> None:
        self.app = app
        self.usage = usage

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope["path"].startswith(UNUSED):
            self.usage.note()
        await self.app(scope, receive, send)
