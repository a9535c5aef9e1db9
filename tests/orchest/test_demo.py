"""The demo as people run it: it ends with everything, and shows it readably, also in a file."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from clarion.testing import Received
from orchest.demo import RETRY_AFTER, Verifier

ROOT = Path(__file__).parents[2]
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def signed(id: str, at: float, body: bytes = b"{}") -> Received:
    when = datetime.fromtimestamp(at, UTC)
    signature = Webhook(SECRET).sign(id, when, body.decode())
    headers = {"webhook-id": id, "webhook-timestamp": str(int(at)), "webhook-signature": signature}
    return Received("/", headers, body)


def test_the_receiver_takes_what_is_signed_after_it_has_refused_once() -> None:
    verifier = Verifier()
    verifier.secret = SECRET
    first, second = signed("msg_1", time.time()), signed("msg_2", time.time())
    refused = verifier(first)
    assert (refused.status, refused.headers) == (503, (("retry-after", str(RETRY_AFTER)),))
    assert verifier.verified("msg_1") == 0
    assert [verifier(second).status, verifier(first).status] == [204, 204]
    assert [verifier.verified(id) for id in ("msg_1", "msg_2")] == [1, 1]
    forged = Received("/", first.headers, b'{"forged": true}')
    assert verifier(forged).status == 401
    assert verifier.unverified == 1


@pytest.mark.timeout(300)
def test_the_demo_ends_with_every_type(tmp_path: Path) -> None:
    """Piped, so without a terminal: 100 columns, no colours; and nothing is left behind."""
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "orchest", "demo"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "58 of 58 recorded, 66 of 66 with telemetry." in done.stdout
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert re.search(r"1: 503 +pending", done.stdout)
    assert re.search(r"2: 204 verified +delivered", done.stdout)
    assert list(tmp_path.iterdir()) == []
    assert done.stderr == ""


def test_the_demo_takes_no_arguments() -> None:
    command = [sys.executable, "-m", "orchest", "demo", "again"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "takes no arguments" in done.stderr


@pytest.mark.timeout(200)
def test_the_demo_that_is_told_to_end_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-u", "-m", "orchest", "demo"]
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        lines = iter(demo.stdout.readline, "")
        address = re.search(r"http://127\.0\.0\.1:(\d+)", next(lines))
        assert address is not None
        assert any("project:one-off-job:started" in line for line in lines)
        demo.terminate()
        list(lines)
        assert demo.wait(60) == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(address[1])), 5).close()
