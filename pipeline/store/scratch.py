"""Files being written: their names say by whom, so that those of killed attempts can be told from those in work."""

import os
import re
import secrets
import time
from pathlib import Path

from pipeline.store.process import host, is_gone, process
from schemas.hashes import sha256

_TOKEN = re.compile(r"(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-(?P<start>[a-z0-9]+)-[0-9a-f]{8}")
_ABANDONED_S = 24 * 3600.0
"""After which a file of another host that was not written to counts as left behind."""


def scratch_token() -> str:
    """Return what ends the names of this process's files in work, another at every call. No dot is in it."""
    return f"{_host()}-{process(os.getpid()).replace(':', '-')}-{secrets.token_hex(4)}"


def sweep_scratch(folder: Path) -> None:
    """Remove the files in `folder` whose writers are gone; those of live attempts stay. No folder is no error."""
    if not folder.is_dir():
        return
    ours, now = _host(), time.time()
    for path in folder.iterdir():
        token = _TOKEN.fullmatch(path.name.rpartition(".")[2])
        if token is None:
            continue
        if token["host"] == ours:
            left_behind = is_gone(f"{token['pid']}:{token['start']}")
        else:
            left_behind = _is_older(path, now - _ABANDONED_S)
        if left_behind:
            path.unlink(missing_ok=True)


def _is_older(path: Path, moment: float) -> bool:
    try:
        return path.stat().st_mtime < moment
    except FileNotFoundError:
        return False


def _host() -> str:
    return sha256(host().encode())[:8]
