"""Who works on a row: a name of one worker of one process, which tells later whether that process lives."""

import os
import secrets
import socket
from datetime import timedelta

from orchest.executor.processes import Identity, boot, identify

BEAT = timedelta(seconds=5)
"""How often an owner writes that it lives."""
LAPSE = timedelta(seconds=30)
"""How old the last of these may be before its work counts as an orphan."""


def new_owner() -> str:
    """A name no other worker has: the machine, its boot, the process with its start time, and chance."""
    me = identify(os.getpid())
    start = me.start if me is not None else 0
    return "/".join(
        [socket.gethostname()[:64], boot() or "-", str(os.getpid()), str(start), secrets.token_hex(4)]
    )


def surely_gone(owner: str) -> bool:
    """Whether the process of ``owner`` has ended. False when only another machine can tell."""
    try:
        host, booted, pid, start, _ = owner.split("/")
        process = Identity(int(pid), int(start), "" if booted == "-" else booted)
    except ValueError:
        return False
    return host == socket.gethostname()[:64] and not process.alive()
