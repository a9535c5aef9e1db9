"""A request's head must come in time: uvicorn waits for one as long as a client goes on sending it."""

from asyncio import TimerHandle, Transport
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol


class PromptHeads(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, for ``uvicorn.Config(http=PromptHeads)``: who sends no whole head is told 408.

    The time counts from the connection, or from the first byte after an answer; while a request is worked on
    or its body comes, nothing is counted here.
    """

    seconds: ClassVar[float] = 10.0
    """How long a head may take."""

    _timer: TimerHandle | None = None
    _in_body = False

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._begin()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        answered = self.cycle is None or self.cycle.response_complete
        if answered and not self._in_body and self._timer is None and not self.transport.is_closing():
            self._begin()

    def on_headers_complete(self) -> None:
        self._end()
        self._in_body = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_body = False
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        super().connection_lost(exc)

    def _begin(self) -> None:
        self._timer = self.loop.call_later(self.seconds, self._refuse)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self) -> None:
        self.transport.write(STATUS_LINE[408] + b"content-length: 0\r\nconnection: close\r\n\r\n")
        self.transport.close()
