"""An answer means kept: nothing acknowledged is lost, whatever the disk or the process does."""

import asyncio
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clarion.collector.journal import Journal, StorageFailed
from clarion.collector.loader import Loader, trim
from clarion.collector.store import DuckDBStore, Loaded
from clarion.errors import ConfigurationError


def read(directory: Path) -> list[bytes]:
    return [line for path in sorted(directory.glob("*.ndjson")) for line in path.read_bytes().splitlines()]


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """A real full disk, as one process sees it: writes beyond ``size`` fail."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


async def test_lines_of_many_requests_share_fsyncs_and_are_all_there(tmp_path: Path) -> None:
    sealed: list[Path] = []
    journal = Journal(tmp_path, sealed.append, segment_seconds=60)
    journal.recover()
    journal.start()
    await asyncio.gather(*(journal.append(b"%d\n" % n) for n in range(500)))
    journal.stop()
    assert sorted(map(int, read(tmp_path))) == list(range(500))
    assert 0 < journal.fsyncs < 500
    assert sealed == sorted(tmp_path.glob("*.ndjson"))


async def test_counters_are_written_when_a_segment_is_sealed(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda _: None, tail=lambda: b"tail\n", segment_seconds=60)
    journal.recover()
    journal.start()
    await journal.append(b"one\n")
    journal.seal()
    journal.stop()
    assert read(tmp_path) == [b"one", b"tail"]


async def test_segments_are_sealed_by_size_and_numbered_after_the_newest_loaded(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda _: None, segment_bytes=10, segment_seconds=60)
    journal.recover()
    journal.start(first=41)
    for _ in range(3):
        await journal.append(b"0123456789\n")
    journal.stop()
    assert [int(path.stem) for path in sorted(tmp_path.glob("*.ndjson"))] == [42, 43, 44]


def test_a_line_cut_short_by_a_crash_was_never_promised(tmp_path: Path) -> None:
    (tmp_path / "000000000005.open").write_bytes(b"whole\nhal")
    (tmp_path / "000000000006.open").write_bytes(b"hal")
    found = Journal(tmp_path, lambda _: None).recover()
    assert [path.name for path in found] == ["000000000005.ndjson"]
    assert read(tmp_path) == [b"whole"]


async def test_a_full_disk_refuses_and_later_goes_on(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda _: None, segment_seconds=60)
    journal.recover()
    journal.start()
    await journal.append(b"a\n")
    with files_up_to(4096):
        with pytest.raises(StorageFailed):
            await journal.append(b"b" * 8000 + b"\n")
        assert journal.failed
    await journal.append(b"c\n")
    assert not journal.failed
    journal.stop()
    for path in tmp_path.glob("*.ndjson"):
        trim(path)
    assert read(tmp_path) == [b"a", b"c"]


async def test_nothing_is_promised_after_the_end(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda _: None)
    journal.recover()
    journal.start()
    journal.stop()
    with pytest.raises(StorageFailed):
        await journal.append(b"late\n")


class Failing:
    """A store that refuses some loads and then recovers."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.loads: list[int] = []
        self.refused = threading.Event()

    def load(self, number: int, segment: Path) -> Loaded:
        if self.failures:
            self.failures -= 1
            self.refused.set()
            raise RuntimeError("the database is away")
        self.loads.append(number)
        return Loaded(1)


def test_a_segment_the_store_refused_is_offered_again_in_order(tmp_path: Path) -> None:
    store = Failing(2)
    loader = Loader(store)  # type: ignore[arg-type]
    for number in (1, 2):
        (tmp_path / f"{number:012d}.ndjson").write_bytes(b"x\n")
        loader.offer(tmp_path / f"{number:012d}.ndjson")
    assert loader.backlog == 4
    loader.start()
    assert loader.wait()
    assert store.loads == [1, 2]
    assert (loader.backlog, loader.failing) == (0, False)
    assert not list(tmp_path.iterdir())
    loader.stop()


def test_a_segment_that_was_not_loaded_stays_on_disk_and_fills_the_backlog(tmp_path: Path) -> None:
    store = Failing(10**9)
    loader = Loader(store, backlog_bytes=1)  # type: ignore[arg-type]
    path = tmp_path / "000000000001.ndjson"
    path.write_bytes(b"x\n")
    loader.start([path])
    assert store.refused.wait(10)
    assert loader.full
    loader.stop()
    assert path.read_bytes() == b"x\n"


def test_one_process_owns_the_file(tmp_path: Path) -> None:
    path = tmp_path / "events.duckdb"
    script = (
        "import sys; from pathlib import Path; from clarion.collector.store import DuckDBStore;"
        "mine = DuckDBStore(Path(sys.argv[1])); print('mine', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "mine\n"
        with pytest.raises(ConfigurationError, match="in use by another process"):
            DuckDBStore(path)
        other.kill()
