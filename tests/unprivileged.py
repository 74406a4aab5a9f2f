"""Root's right to read and write everything, laid down for a while: the mode of a file holds for it then, too."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

_VERSION_3 = 0x20080522
_OVERRIDE = 1 << 1 | 1 << 2
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH (capabilities(7))."""


@contextmanager
def modes_hold() -> Iterator[None]:
    """In this thread, let files be as their modes say."""
    if os.geteuid() != 0:
        yield
        return
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    held = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice
    _call("capget", header, held)
    less = (ctypes.c_uint32 * 6)(*held)
    less[0] &= ~_OVERRIDE
    _call("capset", header, less)
    try:
        yield
    finally:
        _call("capset", header, held)


def _call(name: str, *arguments: object) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), name)
