"""Starts one step so that it dies when its executor dies. Run as a script, never imported by the platform.

``python -I -S launch.py EXECUTOR_PID COMMAND...`` asks the kernel for SIGKILL at the parent's death
(prctl(2), PR_SET_PDEATHSIG; survives execve), lowers the limit by which users' code is known
(`orchest.executor.processes`), and becomes the command: same pid, same start time. Doing this in the child
after fork (Popen's preexec_fn) is not safe in a program with threads.
"""

import ctypes
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1
RLIMIT_LOCKS = 10
UNLIMITED_LESS_ONE = 2**62
"""What stands for one less than no limit: any number does, if it differs from none."""


def main() -> None:
    executor, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != executor:  # it died before the prctl: nobody would ever kill us
            sys.exit(143)
        lower_limit()
    try:
        os.execvp(command[0], command)  # noqa: S606 - the whole point; there is no shell in between
    except OSError as error:
        print(f"cannot execute {command[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(127)


def lower_limit() -> None:
    """Below whatever it is: a platform may itself run as a step of another."""
    _, hard = resource.getrlimit(RLIMIT_LOCKS)
    lower = UNLIMITED_LESS_ONE if hard == resource.RLIM_INFINITY else max(hard - 1, 0)
    resource.setrlimit(RLIMIT_LOCKS, (lower, lower))


if __name__ == "__main__":
    main()
