"""What goes wrong with a data set's store: in sentences that say what to do, and tried again where it may pass."""

import contextlib
import errno
import re
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

_Result = TypeVar("_Result")

_TRIES = 3
_BACK_OFF_S = 2.0
"""Before the second try; twice as much before each further one."""
_FULL = "free space, then run the same command again; finished shards are kept"
_DENIED = "permission denied: choose an OUTPUT that you may write"
_PERMANENT = {
    errno.ENOSPC: f"the disk is full: {_FULL}",
    errno.EDQUOT: f"the quota is used up: {_FULL}",
    errno.EROFS: "the file system is read-only: choose another OUTPUT",
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.ENOTDIR: "a file is in the way: choose another OUTPUT",
}
"""Errors that waiting does not cure, and what does."""
_UNKNOWN_USER = re.compile("Credential|Auth|Token|Profile|Login")
"""What the names of errors hold that the stores' libraries raise for want of a login."""
_FORBIDDEN = re.compile("^(Forbidden|Unauthorized|Access ?Denied)")
"""How the messages of errors begin that say no more than that."""
_UNREACHABLE = re.compile("Connect|Endpoint|Proxy|Timeout|DNS|gaierror")


class StorageError(OSError):
    """OUTPUT cannot be read or written; the message names the file and what to do. Commands exit 5 on it."""

    exit_code = 5

    def __init__(self, message: str, *, may_pass: bool = False) -> None:
        super().__init__(message)
        self.may_pass = may_pass
        """Whether the same operation may succeed a little later."""


def in_words(error: Exception, where: str) -> StorageError:
    """Return what `error`, of any library, means for OUTPUT, as an error that names `where` and what to do."""
    denied = isinstance(error, PermissionError) or _FORBIDDEN.search(str(error)) or _status(error) in (401, 403)
    code = errno.EACCES if denied else getattr(error, "errno", None)
    if code in _PERMANENT:
        return StorageError(f"{where}: {getattr(error, 'strerror', None) or error}; {_PERMANENT[code]}")
    names = " ".join(kind.__name__ for kind in _with_causes(error))
    if _UNKNOWN_USER.search(names):
        remedy = "give the store's credentials (its environment variables, or its own login), then run it again"
        return StorageError(f"{where}: {type(error).__name__}: {error}; {remedy}")
    told = getattr(error, "strerror", None) or (f"{error}" if isinstance(error, OSError) else "")
    told = told or f"{type(error).__name__}: {error}"
    remedy = "run the same command again once the cause is gone"
    if _UNREACHABLE.search(names):
        remedy = "check the address and the network, then run the same command again; finished shards are kept"
    return StorageError(f"{where}: {told}; {remedy}", may_pass=True)


def _status(error: Exception) -> int:
    """Return the HTTP status that an error of a store's library states; 0 for none."""
    stated = str(getattr(error, "code", None) or getattr(error, "status", None) or "")
    return int(stated) if stated.isdecimal() else 0


def _with_causes(error: BaseException | None) -> Iterator[type[BaseException]]:
    """Yield the types of an error and of what it was raised from."""
    while error is not None:
        yield from type(error).__mro__
        error = error.__cause__


@contextlib.contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Turn an OSError of OUTPUT at `url` into a StorageError that says what a person can do."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise in_words(error, str(error.filename or url)) from error


@contextlib.contextmanager
def library_errors(where: str) -> Iterator[None]:
    """Turn what a store's library raises of its own, and is no OSError, into a StorageError that names `where`.

    ValueError and Python's other built-in errors are not the store's: they go through, as OSErrors do.
    """
    try:
        yield
    except (OSError, ValueError):
        raise
    except Exception as error:
        if type(error).__module__ == "builtins":
            raise
        raise in_words(error, where) from error


def retried(operation: Callable[[], _Result], *, answers: tuple[type[OSError], ...] = ()) -> _Result:
    """Return what `operation` returns, trying it again after an OSError that may pass; raises the last one.

    Errors among `answers` say how things are, not that something failed: they are raised at once.
    """
    for attempt in range(_TRIES - 1):
        try:
            return operation()
        except answers:
            raise
        except OSError as error:
            if not _may_pass(error):
                raise
            time.sleep(_BACK_OFF_S * 2**attempt)
    return operation()


def _may_pass(error: OSError) -> bool:
    if isinstance(error, StorageError):
        return error.may_pass
    return not isinstance(error, PermissionError) and error.errno not in _PERMANENT
