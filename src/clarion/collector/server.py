"""The collector's own HTTP server: uvicorn, one process, because one process owns the data directory."""

import socket
from collections.abc import Callable

import uvicorn

from clarion.collector.app import App, create_app
from clarion.collector.service import Settings
from clarion.collector.store import Store
from clarion.errors import ConfigurationError
from clarion.heads import PromptHeads


def serve(
    settings: Settings,
    host: str = "127.0.0.1",
    port: int = 8010,
    store: Store | None = None,
    listening: Callable[[int], None] | None = None,
) -> bool:
    """Run until SIGINT or SIGTERM, then drain. ``port`` 0 lets the system pick; ``listening`` is told which.

    No access log, no proxy headers: an address that is not read cannot be written. False: it could not start,
    as the log says.

    Raises:
        ConfigurationError: the address cannot be bound, or the data directory or schema cannot be used.
    """
    app = create_app(settings, store)
    config = uvicorn.Config(
        app,
        http=PromptHeads,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        log_level="warning",
        timeout_graceful_shutdown=3,
        timeout_keep_alive=75,
        backlog=2048,
    )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            why = error.strerror or error
            raise ConfigurationError(f"cannot listen on {host} port {port}: {why}") from error
        server = Server(config, app, listening)
        server.run(sockets=[listener])
        return server.started


class Server(uvicorn.Server):
    """uvicorn that tells its port, and ends the open tails before it waits for connections to close."""

    def __init__(
        self, config: uvicorn.Config, app: App, listening: Callable[[int], None] | None = None
    ) -> None:
        super().__init__(config)
        self._app = app
        self._listening = listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._listening is not None and sockets and self.started:
            self._listening(sockets[0].getsockname()[1])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.collector.tail.close()
        await super().shutdown(sockets)
