"""A run's folder, held by one training at a time: two would write one checkpoint, each over the other's."""

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.errors import RefusedError
from trainer.loss.gather import rank

LOCK = "lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""Of file systems that know none: a run there is as safe as it is without."""


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Make the folder `out` and hold it. The first process holds it for all of its run.

    The lock goes with its process, however that ends, and worker processes do not have it; NFS tells other hosts of it.
    Raises RefusedError where another training holds it.
    """
    out.mkdir(parents=True, exist_ok=True)
    if rank():
        yield
        return
    with (out / LOCK).open("a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise RefusedError(
                    f"{out}: another training is at work there: wait for it, end it, or take another --out"
                ) from error
            if error.errno not in _NO_LOCKS:
                raise
        yield
