"""What goes wrong with a data set's store: in sentences that say what to do, and tried again where it may pass."""

import contextlib
import errno
import os
import re
import ssl
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from schemas.paths import is_url

_Result = TypeVar("_Result")

_TRIES = 3
_BACK_OFF_S = 2.0
"""Before the second try; twice as much before each further one."""
_FULL = "free space, then run the same command again; finished shards are kept"
_DENIED = "permission denied: choose an OUTPUT that you may write"
_DENIED_TO_READ = (
    "permission denied: take a login that may read it, and that may list its bucket (s3:ListBucket): without that a "
    "store says so of files that are not there, too"
)
_UNREADABLE = "permission denied: make it readable to you (chmod), then run the same command again"
_DISTRUSTED = (
    "its certificate is not trusted here: if you trust it, name a file with its authority's certificate in "
    "SSL_CERT_FILE, for S3 in AWS_CA_BUNDLE, then run the same command again"
)
_PERMANENT = {
    errno.ENOSPC: f"the disk is full: {_FULL}",
    errno.EDQUOT: f"the quota is used up: {_FULL}",
    errno.EROFS: "the file system is read-only: choose another OUTPUT",
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.ENOTDIR: "a file is in the way: choose another OUTPUT",
}
"""Errors that waiting does not cure, and what does."""
_UNKNOWN_USER = re.compile("Credential|Auth|Token|Profile|Login|AccessKey|Signature")
"""What the names of errors hold that stores and their libraries raise for want of a login, or for one run out."""
_FORBIDDEN = re.compile("^(Forbidden|Unauthorized|Access ?Denied)")
"""How the messages of errors begin that say no more than that."""
_BAD_REQUEST = "Bad Request: "
_RANGE_NOT_SATISFIABLE = 416
REPLACED = "was replaced while it was read; run the same command again"
_MAY_PASS = (408, 429)
"""Statuses of requests that are refused for the time being."""
_UNREACHABLE = re.compile("Connect|Endpoint|Proxy|Timeout|DNS|gaierror")


class StorageError(OSError):
    """OUTPUT cannot be read or written; the message names the file and what to do. Commands exit 5 on it."""

    exit_code = 5

    def __init__(self, message: str, *, may_pass: bool = False) -> None:
        super().__init__(message)
        self.may_pass = may_pass
        """Whether the same operation may succeed a little later."""


def in_words(error: Exception, where: str, *, reads: bool = False) -> StorageError:
    """Return what `error`, of any library, means for OUTPUT, as an error that names `where` and what to do.

    `reads`: it came of reading what is not OUTPUT.
    """
    if is_replaced(error):
        return StorageError(f"{where}: {REPLACED}")
    names = " ".join(_names_of(error))
    unknown = _UNKNOWN_USER.search(names) or _status(error) == 401
    denied = isinstance(error, PermissionError) or _FORBIDDEN.search(str(error)) or _status(error) == 403
    code = errno.EACCES if denied else getattr(error, "errno", None)
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return StorageError(f"{where}: {error}; {_DISTRUSTED}")
    if isinstance(error, ssl.SSLError) or "SSL" in names:
        code = None  # it is OpenSSL's, which has numbers of its own: 1 is no EPERM
    if code in _PERMANENT and not unknown:
        remedy = _PERMANENT[code]
        if denied and reads:
            remedy = _DENIED_TO_READ if is_url(where) else _UNREADABLE
        return StorageError(f"{where}: {getattr(error, 'strerror', None) or error}; {remedy}")
    if unknown:
        remedy = "give the store's credentials (its environment variables, or its own login), then run it again"
        return StorageError(f"{where}: {type(error).__name__}: {error}; {remedy}")
    told = getattr(error, "strerror", None) or (f"{error}" if isinstance(error, OSError) else "")
    told = told or f"{type(error).__name__}: {error}"
    remedy = "run the same command again once the cause is gone"
    if _UNREACHABLE.search(names):
        remedy = "check the address and the network, then run the same command again"
        remedy += "" if reads else "; finished shards are kept"
    return StorageError(f"{where}: {told}; {remedy}", may_pass=True)


def check_here(path: str, named: str) -> None:
    """Raise StorageError for a URL where only a local path can be written; `named` is how it is given: `--out`."""
    if is_url(path):
        raise StorageError(
            f"{named} {path}: is written on this machine, and not to a store; name a path here, and copy it there "
            "when it is done"
        )


def _status(error: Exception) -> int:
    """Return the HTTP status that an error of a store's library states; 0 for none."""
    stated = str(getattr(error, "status", None) or getattr(error, "code", None) or "")
    return int(stated) if stated.isdecimal() else 0


def _names_of(error: BaseException | None) -> Iterator[str]:
    """Yield what an error, and what it was raised from, are called: by Python, and by a store that gives a code."""
    while error is not None:
        yield from (kind.__name__ for kind in type(error).__mro__)
        response = getattr(error, "response", None)
        stated = response.get("Error") if isinstance(response, dict) else None
        yield str(stated.get("Code", "")) if isinstance(stated, dict) else ""
        error = error.__cause__


def is_of_store(error: Exception) -> bool:
    """Return whether an error is one that stores raise: of the system, or of a library that is not Python's own.

    gcsfs raises ValueError for requests that the store calls bad.
    """
    if isinstance(error, ValueError) and not isinstance(error, OSError):
        return str(error).startswith(_BAD_REQUEST)
    return isinstance(error, OSError) or type(error).__module__ != "builtins"


def trouble_behind(error: FileNotFoundError) -> Exception | None:
    """Return what kept a store from saying whether a file is there; None where it said that there is none.

    fsspec calls a file of a web server missing when the server cannot be reached, or answers with an error.
    """
    cause = error.__cause__
    if not isinstance(cause, Exception):
        return None
    unsure = _UNREACHABLE.search(" ".join(_names_of(cause))) or _status(cause) in (401, 403, 408, 429)
    return cause if unsure or _status(cause) >= 500 else None


def is_refused_range(error: Exception) -> bool:
    """Return whether an error may say that a file has no byte where a range begins: an empty one has none."""
    return getattr(error, "errno", None) == errno.EINVAL or _status(error) == _RANGE_NOT_SATISFIABLE


def is_replaced(error: Exception) -> bool:
    """Return whether s3fs says that there is another version of a file now than the one that it opened."""
    return type(error).__name__ == "FileExpired"


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
def full_disk(path: str | os.PathLike[str]) -> Iterator[None]:
    """Say of a disk that fills up while the file or folder at `path` is written that it is the one there.

    The system's error of a write names no file, and OUTPUT, or an INPUT, would be blamed for a full temporary folder.
    """
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise in_words(error, os.fspath(path)) from error


@contextlib.contextmanager
def read_errors(where: str) -> Iterator[None]:
    """Turn what goes wrong when `where` is read, here or on a store, into a StorageError that names it.

    That something is not there, or is no file or no folder, goes through, and so do errors that are not the store's.
    """
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, StorageError):
        raise
    except Exception as error:
        if not is_of_store(error):
            raise
        raise in_words(error, where, reads=True) from error


@contextlib.contextmanager
def library_errors(where: str) -> Iterator[None]:
    """As `read_errors`, for a block that does other things than reading: what is an OSError may be of these."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        if not is_of_store(error):
            raise
        raise in_words(error, where, reads=True) from error


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


def pauses() -> tuple[float, ...]:
    """Return the pauses in seconds between tries on a store that does not answer: a minute in all."""
    return tuple(_BACK_OFF_S * factor for factor in (0.25, 0.75, 2, 4, 8, 15))


def does_not_answer(error: Exception) -> bool:
    """Return whether an error of a store, or of its library, says no more than that it failed, and may not later.

    What is missing, forbidden, already there, or asked for wrongly is an answer.
    """
    if isinstance(error, StorageError):
        return error.may_pass
    if isinstance(error, FileNotFoundError):
        trouble = trouble_behind(error)
        return trouble is not None and in_words(trouble, "").may_pass
    answers = (FileExistsError, IsADirectoryError, NotADirectoryError, NotImplementedError)
    if isinstance(error, answers) or not is_of_store(error) or is_refused_range(error) or is_replaced(error):
        return False
    status = _status(error)
    is_fault_of_ours = 400 <= status < 500 and status not in _MAY_PASS
    return not is_fault_of_ours and not str(error).startswith(_BAD_REQUEST) and in_words(error, "").may_pass


def _may_pass(error: OSError) -> bool:
    if isinstance(error, StorageError):
        return error.may_pass
    return not isinstance(error, PermissionError) and error.errno not in _PERMANENT
