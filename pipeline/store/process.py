"""Names for this host and its processes, by which others know whether a file's writer or a lease's holder is gone."""

import contextlib
import os
import socket
from pathlib import Path


def host() -> str:
    """Return a name for this boot of this host and this namespace of process ids.

    A restarted machine is another host, and so is a container beside this one, whose process ids are its own.
    """
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with contextlib.suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]"))  # of "pid:[4026531836]"
    return ":".join(parts)


def process(pid: int) -> str:
    """Return `pid:start`, where start tells the process from a later one with the same number; "pid:" if it is gone."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return f"{pid}:unknown" if _is_alive(pid) else f"{pid}:"
    state, start_ticks = after_name[0], after_name[19]
    return f"{pid}:" if state in "ZX" else f"{pid}:{start_ticks}"


def is_gone(process_name: str) -> bool:
    """Return whether the process of this host that `process` named so has ended."""
    return process(int(process_name.split(":")[0])) != process_name


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
