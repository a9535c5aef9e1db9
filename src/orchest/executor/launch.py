"""Starts one step so that it dies when its executor dies. Run as a script, never imported by the platform.

``python -I -S launch.py EXECUTOR_PID COMMAND...`` asks the kernel for SIGKILL at the parent's death
(prctl(2), PR_SET_PDEATHSIG; survives execve) and becomes the command: same pid, same start time. Doing this
in the child after fork (Popen's preexec_fn) is not safe in a program with threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    executor, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != executor:  # it died before the prctl: nobody would ever kill us
            sys.exit(143)
    try:
        os.execvp(command[0], command)  # noqa: S606 - the whole point; there is no shell in between
    except OSError as error:
        print(f"cannot execute {command[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    main()
