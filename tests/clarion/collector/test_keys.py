"""Write keys are found, refused, issued and revoked; too many events have to wait."""

import subprocess
import sys
from pathlib import Path

import pytest

from clarion.collector.keys import RateLimit, WriteKey, WriteKeys, issue, read_keys, revoke
from clarion.errors import ConfigurationError, InvalidInput, NotFound


class Ticks:
    """A monotonic clock moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_each_key_sends_for_its_own_project() -> None:
    keys = WriteKeys([WriteKey.of("one", "key-of-one"), WriteKey.of("two", "key-of-two")])
    assert [keys.project_of(key) for key in ("key-of-one", "key-of-two", "key-of-none")] == [
        "one",
        "two",
        None,
    ]
    assert keys.projects() == ("one", "two")


def test_a_key_is_issued_and_revoked_while_the_collector_runs(tmp_path: Path) -> None:
    clock = Ticks()
    path = tmp_path / "keys.json"
    keys = WriteKeys((), path, clock)
    key = issue(path, "orchest")
    clock.now = 2
    assert keys.project_of(key) == "orchest"
    revoke(path, key)
    clock.now = 4
    assert keys.project_of(key) is None


def test_the_file_holds_no_key_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    key = issue(path, "orchest")
    assert key not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    assert [entry.project for entry in read_keys(path)] == ["orchest"]


def test_two_processes_that_change_the_file_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    first = issue(path, "first")
    script = (
        "import sys; from pathlib import Path; from clarion.collector.keys import issue, revoke\n"
        "path, project, old = Path(sys.argv[1]), sys.argv[2], sys.argv[3]\n"
        "print(flush=True); sys.stdin.readline()\n"
        "for n in range(25): issue(path, project)\n"
        "revoke(path, issue(path, project) if project == 'two' else old)\n"
    )
    command = [sys.executable, "-c", script, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    running = [subprocess.Popen([*command, project, first], **pipes) for project in ("one", "two")]  # type: ignore[call-overload]
    for process in running:  # both are ready before either begins
        process.stdout.readline()
    for process in running:
        process.stdin.write(b"\n")
        process.stdin.flush()
    for process in running:
        process.communicate(timeout=60)
        assert process.returncode == 0
    found = read_keys(path)
    assert [sum(key.project == name for key in found) for name in ("first", "one", "two")] == [1, 25, 26]
    assert sorted(key.project for key in found if key.revoked) == ["first", "two"]
    assert len({key.digest for key in found}) == 52


def test_revoking_what_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        revoke(tmp_path / "keys.json", "unknown-key")


def test_a_broken_key_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text("[]")
    with pytest.raises(ConfigurationError, match=r"keys\.json"):
        WriteKeys((), path)


@pytest.mark.parametrize(
    ("project", "key"), [("Has Space", "long-enough"), ("fine", "short"), ("fine", "käyttäjä-key")]
)
def test_a_key_that_could_not_work_is_refused(project: str, key: str) -> None:
    with pytest.raises(InvalidInput):
        WriteKey.of(project, key)


def test_a_bucket_empties_and_fills_for_each_project() -> None:
    clock = Ticks()
    limit = RateLimit(rate=10, burst=20, clock=clock)
    assert limit.wait("one", 20) == 0
    assert limit.wait("one", 5) == pytest.approx(0.5)
    assert limit.wait("two", 5) == 0
    clock.now = 0.5
    assert limit.wait("one", 5) == 0


def test_a_batch_larger_than_the_burst_passes_once_and_is_paid_back() -> None:
    clock = Ticks()
    limit = RateLimit(rate=10, burst=20, clock=clock)
    assert limit.wait("one", 50) == 0
    assert limit.wait("one", 1) == pytest.approx(3.1)
