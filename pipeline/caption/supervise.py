"""Run a command in a process group of its own, and end the whole group when standard input closes.

    python -I supervise.py GRACE_S COMMAND [ARGUMENT ...]

Whoever starts this holds the other end of the pipe. The kernel closes it however that process ends, by `kill -9` too,
so no server outlives its worker. The group gets SIGTERM, and after GRACE_S seconds SIGKILL. Ends as the command does,
by 128 + N where signal N ended it. Should this program be killed itself, Linux kills the command.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)
"""Found before the fork: there is no importing after it."""


def main() -> int:
    """Run the command and return its exit code."""
    grace_s, command = float(sys.argv[1]), sys.argv[2:]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the pipe alone ends us; the command gets its own handling back
    try:
        command_process = subprocess.Popen(  # noqa: S603 - the user's own command
            command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_prepare
        )
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        return 127
    group = command_process.pid
    threading.Thread(target=_end_with_input, args=(group, grace_s), daemon=True).start()
    code = command_process.wait()
    _signal(group, signal.SIGKILL)  # what the command started and left behind
    return code if code >= 0 else 128 - code


def _prepare() -> None:
    """Be killed with the parent, where the system knows how, and take signals as any program does."""
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _end_with_input(group: int, grace_s: float) -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    _signal(group, signal.SIGTERM)
    timer = threading.Timer(grace_s, _signal, (group, signal.SIGKILL))
    timer.daemon = True
    timer.start()


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(main())
