"""The listener on the command line, as a process and over HTTP."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from clarion.cli.listen import judge
from clarion.signing import new_secret, sign, sign_hex
from tests.clarion.cli_runs import call

SECRET = new_secret()
AT = datetime(2026, 1, 1, tzinfo=UTC)


def test_what_is_received_is_judged() -> None:
    body = b'{"type":"shop:opened","data":{}}'
    timestamp, signature = sign([SECRET], "msg_1", AT, body)
    headers = {"webhook-id": "msg_1", "webhook-timestamp": timestamp, "webhook-signature": signature}
    good = judge(headers, body, SECRET, AT)
    assert (good.status, good.id, good.line.split()[-1]) == (204, "msg_1", "verified")
    assert "shop:opened" in good.line
    assert judge(headers, body + b" ", SECRET, AT).status == 401
    assert "too old" in judge(headers, body, SECRET, AT + timedelta(hours=1)).line
    assert judge({}, body, SECRET, AT).status == 401
    assert judge({}, b"[]", None, AT).line.endswith("not verified: no --secret")
    original = {"x-orchest-event": "project:created", "x-hub-signature": sign_hex("mine", body)}
    assert judge(original, body, "mine", AT).line.split()[-1] == "verified"
    assert "project:created" in judge(original, body, "mine", AT).line
    assert judge(original, body, "other", AT).status == 401


@pytest.fixture
def listening() -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """``clarion listen`` as a process: its address, and it."""
    process = subprocess.Popen(
        [
            Path(sys.executable).parent / "clarion",
            "listen",
            "--port",
            "0",
            "--secret",
            SECRET,
            "--count",
            "3",
        ],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:\d+/", line)
    assert found is not None, line
    yield found[0], process
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)


def post(url: str, body: bytes, headers: dict[str, str]) -> int:
    try:
        with urlopen(Request(url, body, headers), timeout=10) as answer:
            status: int = answer.status
            return status
    except HTTPError as error:
        with error:
            return error.code


def test_the_listener_verifies_and_tells_what_comes_twice(
    listening: tuple[str, "subprocess.Popen[str]"],
) -> None:
    url, process = listening
    body = b'{"type":"shop:opened","data":{}}'
    timestamp, signature = sign([SECRET], "msg_1", datetime.now(UTC), body)
    headers = {"webhook-id": "msg_1", "webhook-timestamp": timestamp, "webhook-signature": signature}
    assert post(url, body, headers) == 204
    assert post(url, body, headers) == 204
    assert post(url, b"{}", headers) == 401
    out, _ = process.communicate(timeout=20)
    lines = out.splitlines()
    assert lines[0].endswith("verified")
    assert lines[1].endswith("verified (again)")
    assert "REFUSED: No signature" in lines[2]
    assert process.returncode == 1


def test_the_listener_refuses_a_secret_that_signs_nothing() -> None:
    ran = call("listen", "--port", "0", "--secret", "whsec_!")
    assert ran.status == 2
    assert "secret" in ran.err
