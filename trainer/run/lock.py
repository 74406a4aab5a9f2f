"""A run's folder, held by one training at a time: two would write one checkpoint, each over the other's."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from trainer.errors import RefusedError
from trainer.loss.gather import rank

LOCK = "lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""Of file systems that know none: a run there is as safe as it is without."""

_HELD: set[IO[str]] = set()


def _leave_to_parent() -> None:
    """Close the locks in a forked process: with a worker that outlives a killed run for a moment, it would stay."""
    for file in _HELD:
        file.close()
    _HELD.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Make the folder `out` and hold it. The first process holds it for all of its run.

    The lock goes with its process, however that ends, and worker processes do not have it; NFS tells other hosts of it.
    A folder that was made for a run that is refused goes again. Raises RefusedError where another training holds it.
    """
    is_new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    if rank():
        yield
        return
    with (out / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise RefusedError(
                    f"{out}: another training is at work there: wait for it, end it, or take another --out"
                ) from error
            if error.errno not in _NO_LOCKS:
                raise
        _HELD.add(file)
        try:
            yield
        except Exception:
            if is_new and [path.name for path in out.iterdir()] == [LOCK]:
                with contextlib.suppress(OSError):  # while it is held: nobody can have taken it meanwhile
                    (out / LOCK).unlink()
                    out.rmdir()
            raise
        finally:
            _HELD.discard(file)
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_UN)
