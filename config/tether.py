"""Run a command that must not outlive its parent: `python tether.py PARENT_PID PROGRAM ARGUMENTS...`.

The kernel sends SIGTERM when the parent dies, however it dies; the wish survives the `exec`. Linux only.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(sys.argv[1]):  # it died before we asked
        sys.exit(0)
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606


main()
