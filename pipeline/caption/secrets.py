"""Keys and passwords that a server is asked with: where they come from, and what a URL is without them."""

import base64
import os
import re
from urllib.parse import unquote

_USERINFO = re.compile(r"(?:(?<=://)|^)([^/]*)@")


def api_key(variable: str | None) -> str | None:
    """Return the key that the environment variable holds, None where none is named.

    Raises ValueError where it holds none. The value is not in the message, nor does it get into that of a client which
    cannot send it: what is returned can stand in a header.
    """
    if variable is None:
        return None
    key = os.environ.get(variable)
    if key is None:
        raise ValueError(f"--caption.api-key-env {variable}: no such environment variable is set")
    key = key.strip()  # of the line end that a file or a shell has left
    if not (key and key.isascii() and key.isprintable()):
        raise ValueError(
            f"--caption.api-key-env {variable}: the variable holds no key: it is empty, or has characters that are not "
            "printable ASCII"
        )
    return key


def passwords(url: str) -> list[str]:
    """Return the forms in which the password of a URL may turn up in a message, longest first; [] where it has none."""
    found = _USERINFO.search(url)
    if found is None:
        return []
    name, _, password = found.group(1).partition(":")
    basic = base64.b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode()
    return sorted({found.group(), basic, *filter(None, (password, unquote(password)))}, key=len, reverse=True)


def without_userinfo(url: str) -> str:
    """Return the URL as people may see it: without user name and password."""
    return _USERINFO.sub("", url)
