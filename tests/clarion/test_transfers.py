import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from clarion.exchange import import_pycurl
from clarion.testing import Receiver
from clarion.transfers import BURST, SPINS, Transfers

pycurl = import_pycurl()


@asynccontextmanager
async def opened() -> AsyncIterator[Transfers]:
    transfers = Transfers(pycurl)
    try:
        yield transfers
    finally:
        transfers.close()


def handle(url: str, **options: Any) -> Any:
    curl = pycurl.Curl()
    for name, value in {"URL": url, "POSTFIELDS": b"{}", "WRITEFUNCTION": lambda _: None, **options}.items():
        curl.setopt(getattr(pycurl, name), value)
    return curl


def sockets(transfers: Transfers) -> list[int]:
    """Those that are watched, without the event by which libcurl wakes itself."""
    return [number for number in transfers._watched if stat.S_ISSOCK(os.fstat(number).st_mode)]


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_many_transfers_at_once_and_one_after_another() -> None:
    with Receiver() as receiver:
        async with opened() as transfers:
            curls = [handle(receiver.url) for _ in range(3 * BURST + 1)]
            for _ in range(3):
                await asyncio.gather(*(transfers.perform(curl) for curl in curls))
            assert [curl.getinfo(pycurl.RESPONSE_CODE) for curl in curls] == [204] * len(curls)
        assert len(receiver.received) == 3 * len(curls)


async def test_a_burst_is_sent_before_the_loop_comes_round() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=2 * BURST) as server:
        server.settimeout(5)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        async with opened() as transfers:
            futures = [transfers.perform(handle(url)) for _ in range(BURST)]
            server.accept()[0].close()  # the loop had no turn yet
            assert not any(future.done() for future in futures)


async def test_a_kept_connection_stays_in_the_selector() -> None:
    with Receiver() as receiver:
        async with opened() as transfers:
            curl = handle(receiver.url)
            await transfers.perform(curl)
            watched = dict(transfers._watched)
            assert len(sockets(transfers)) == 1
            assert not transfers._wanted
            await transfers.perform(curl)
            assert curl.getinfo(pycurl.NUM_CONNECTS) == 0
            assert transfers._watched == watched


async def test_a_kept_connection_that_the_receiver_closes_is_watched_no_longer() -> None:
    answered = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await answered.wait()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, opened() as transfers:
        curl = handle(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        await transfers.perform(curl)
        (kept,) = sockets(transfers)
        answered.set()
        async with asyncio.timeout(5):
            while kept in transfers._watched:
                await asyncio.sleep(0.001)
        await transfers.perform(curl)  # over a new connection, which may have the old one's number
        assert curl.getinfo(pycurl.RESPONSE_CODE) == 204


async def test_what_is_closed_here_and_open_in_a_forked_process_does_not_keep_the_loop_awake() -> None:
    async with opened() as transfers:
        ours, theirs = socket.socketpair()
        with theirs:
            transfers._want(pycurl.POLL_IN, ours.fileno(), None, None)
            transfers._want(pycurl.POLL_REMOVE, ours.fileno(), None, None)
            copy = os.dup(ours.fileno())  # as a forked process has it
            ours.close()
            theirs.send(b"x")
            selector = transfers._selector
            await turns(10 * SPINS)
            assert transfers._selector is not selector
            assert transfers._selector.select(0) == []
            spins = transfers._spins
            await turns(10)
            assert transfers._spins == spins
            os.close(copy)


async def test_a_new_socket_with_the_number_of_a_closed_one_is_watched() -> None:
    async with opened() as transfers:
        ours, theirs = socket.socketpair()
        number = ours.fileno()
        transfers._want(pycurl.POLL_IN, number, None, None)
        transfers._want(pycurl.POLL_REMOVE, number, None, None)
        ours.close()
        theirs.close()
        again, other = socket.socketpair()
        with again, other:
            if again.fileno() != number:
                os.dup2(again.fileno(), number)
            transfers.forget(number)
            transfers._want(pycurl.POLL_IN, number, None, None)
            other.send(b"x")
            assert [(key.fd, events) for key, events in transfers._selector.select(1)] == [(number, 1)]
            transfers._want(pycurl.POLL_REMOVE, number, None, None)
            transfers.forget(number)


async def test_a_transfer_that_fails_says_why() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    async with opened() as transfers:
        with pytest.raises(pycurl.error) as caught:
            await transfers.perform(handle(f"http://127.0.0.1:{port}/"))
    assert caught.value.args[0] == pycurl.E_COULDNT_CONNECT


async def test_each_transfer_has_its_own_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts, and never answers
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        async with opened() as transfers:
            long = transfers.perform(handle(url, TIMEOUT_MS=60_000))
            short = transfers.perform(handle(url, TIMEOUT_MS=50))
            with pytest.raises(pycurl.error) as caught:
                await short
            assert not long.done()
    assert caught.value.args[0] == pycurl.E_OPERATION_TIMEDOUT
    assert long.cancelled()


async def test_a_transfer_can_be_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        async with opened() as transfers:
            curl = handle(f"http://127.0.0.1:{server.getsockname()[1]}/")
            future = transfers.perform(curl)
            await turns(3)
            transfers.remove(curl)
            assert future.cancelled()
            transfers.remove(curl)  # it is over
            curl.close()
