"""Local path or URL: told apart here alone, for inputs, OUTPUT, training data and the viewer.

A URL has `scheme://` in front, or a chain of fsspec's such as `simplecache::s3://`. All else is a local path, and no
part of it means anything: `yolo::v9/out`, `x?y=z`, `50%20off`, `#1`, `[a]`, `~me`. Only `~` and `~/` stand for the
home folder.
"""

import os
import re
from pathlib import Path

_URL = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*::)*([A-Za-z][A-Za-z0-9+.-]*)://")
_LOCAL_SCHEMES = {"file", "local"}
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code != 0x0A}
_CONTROLS |= {code: f"\\u{code:04x}" for code in (0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}
"""What moves a terminal's cursor, or turns the order of what is shown around."""


def is_url(path: str) -> bool:
    """Return True for a URL; for `file:///folder` too."""
    return _URL.match(path) is not None


def as_path(path: str) -> str:
    """Return a local path, or a `file://` URL, as an absolute path (`..` and links stay); another URL as is."""
    match = _URL.match(path)
    if match is not None and (match[1] not in _LOCAL_SCHEMES or "::" in match[0]):
        return path
    local = path[match.end() :] if match else path
    if local == "~" or local.startswith("~/"):
        local = os.path.expanduser(local)  # noqa: PTH111 - only the user's own home: `~name` may be a folder's name
    return str(Path(local).absolute())


def printable(text: str) -> str:
    """Return the text with control characters, and bytes that are no UTF-8, written out: names may hold any."""
    return text.translate(_CONTROLS).encode("utf-8", "backslashreplace").decode()
