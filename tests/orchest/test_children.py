"""Processes the platform answers for: ended with all they started, and found again after a crash."""

import json
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from orchest import children
from orchest.children import (
    Child,
    describe_exit,
    in_virtual_environment,
    inherited_variables,
    reap,
)
from orchest.executor.processes import identify
from tests.orchest.building import eventually

PATH = {"PATH": "/usr/local/bin:/usr/bin:/bin"}


class Place:
    """Where a child's files are, and whether it has exited."""

    def __init__(self, root: Path) -> None:
        self.root, self.log, self.record = root, root / "log.txt", root / "process.json"
        self.exited = threading.Event()

    def start(self, script: str) -> Child:
        return Child(
            ["sh", "-c", script],
            cwd=self.root,
            variables=PATH,
            log=self.log,
            record=self.record,
            exited=self.exited.set,
        )

    def pid(self) -> int:
        eventually(lambda: self.log.exists() and self.log.read_text().endswith("\n"), "a pid")
        return int(self.log.read_text().split()[0])


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_child_that_ends_says_so_and_how(place: Place) -> None:
    child = place.start("echo out; echo error >&2; exit 7")
    assert place.exited.wait(20)
    assert not child.running
    assert child.end() == 7
    assert sorted(place.log.read_text().split()) == ["error", "out"]
    assert not place.record.exists()


def test_what_a_child_left_behind_ends_with_it(place: Place) -> None:
    child = place.start("setsid sleep 63 & echo $!")
    assert place.exited.wait(20)
    pid = place.pid()
    assert child.end() == 0
    eventually(lambda: identify(pid) is None, "the process it left has ended")


def test_a_child_may_end_in_peace(place: Place) -> None:
    child = place.start("trap 'echo bye; exit 0' TERM; echo $$; while :; do sleep 0.05; done")
    place.pid()
    assert child.end(grace=20) == 0
    assert place.log.read_text().endswith("bye\n")


def test_a_child_that_will_not_end_is_killed(place: Place) -> None:
    child = place.start("trap '' TERM; echo $$; while :; do sleep 0.05; done")
    place.pid()
    assert child.end(grace=0.2) == -signal.SIGKILL


def test_a_program_that_is_not_there_is_told_in_the_log(place: Place) -> None:
    child = Child(
        ["no-such-program"],
        cwd=place.root,
        variables=PATH,
        log=place.log,
        record=place.record,
        exited=place.exited.set,
    )
    assert place.exited.wait(20)
    assert child.end() == 127
    assert "cannot execute no-such-program" in place.log.read_text()


def test_a_child_that_cannot_be_started_leaves_no_record(place: Place) -> None:
    with pytest.raises(FileNotFoundError):
        Child(
            ["true"],
            cwd=place.root / "missing",
            variables=PATH,
            log=place.log,
            record=place.record,
            exited=place.exited.set,
        )
    assert not place.record.exists()


def test_a_record_is_enough_to_end_what_was_started(place: Place) -> None:
    child = place.start("setsid sleep 64 & echo $!; wait")
    pid = place.pid()
    assert {pid, child.pid} <= set(reap(place.record))
    assert not place.record.exists()
    assert reap(place.record) == []
    child.end()


@pytest.mark.parametrize(
    ("entry", "kept"),
    [("{", False), ("{}", False), (json.dumps({"host": "another", "mark": "m", "process": None}), True)],
)
def test_a_record_that_says_nothing_or_is_anothers_kills_nobody(place: Place, entry: str, kept: bool) -> None:
    place.record.write_text(entry)
    assert reap(place.record) == []
    assert place.record.exists() is kept


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "ended with exit code 0"),
        (3, "ended with exit code 3"),
        (-9, "was killed by SIGKILL"),
        (-99, "was killed by signal 99"),
        (None, "could not be killed"),
    ],
)
def test_an_exit_code_in_words(code: int | None, words: str) -> None:
    assert describe_exit(code) == words


def test_only_harmless_variables_are_inherited() -> None:
    own: dict[str, Any] = {**PATH, "LC_ALL": "C", "SECRET": "s", "https_proxy": "p", "PIP_INDEX_URL": "i"}
    assert inherited_variables(own) == {**PATH, "LC_ALL": "C"}
    assert inherited_variables(own, network=True) == {k: v for k, v in own.items() if k != "SECRET"}


def test_a_virtual_environments_programs_come_first() -> None:
    assert in_virtual_environment(PATH, Path("/e/bin/python")) == {
        "PATH": f"/e/bin:{PATH['PATH']}",
        "VIRTUAL_ENV": "/e",
    }


def test_a_child_whose_directory_is_deleted_while_it_starts_is_not_left_running(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.record = place.root / "gone" / "process.json"
    place.record.parent.mkdir()
    started: list[int] = []

    def deleted_meanwhile(pid: int) -> Any:
        started.append(pid)
        shutil.rmtree(place.record.parent)
        return identify(pid)

    monkeypatch.setattr(children, "identify", deleted_meanwhile)
    with pytest.raises(FileNotFoundError):
        place.start("sleep 600")
    assert identify(started[0]) is None
