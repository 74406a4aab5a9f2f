"""Keys and passwords that a server is asked or started with: where they come from, and what is shown without them."""

import base64
import os
import re
import shlex
from collections.abc import Sequence
from urllib.parse import unquote

_USERINFO = re.compile(r"(?:(?<=://)|^)([^/]*)@")
_SECRET = re.compile(r"(?i)(key|token(?!s|iz)|secret|passw)")
_ASSIGNED = re.compile(r"(?i)^((?:--?)?[\w.-]*(?:key|token(?!s|iz)|secret|passw)[\w.-]*)=.+", re.DOTALL)
_WITHIN = re.compile(
    r"(?i)((?<![\w-])-[\w.-]*(?:key|token(?!s|iz)|secret|passw)[\w.-]*\s+"
    r"|[\w.-]*(?:key|token(?!s|iz)|secret|passw)[\w.-]*[\"']?\s*[=:]\s*)"
    r"(?:'[^']*'|\"[^\"]*\"|\S+)"
)
"""The same within a word that is a command of its own, such as that of `bash -c`, or holds settings."""
_USERINFO_WITHIN = re.compile(r"(://)[^/\s@]+@")
_LEAST_SECRET = 6
"""Characters from which on a variable's value is taken for a secret wherever it stands."""


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


def redacted(words: Sequence[str]) -> str:
    """Return a command as people may see it: `***` for what follows a name such as --api-key, and for passwords."""
    shown = [
        "***" if before.startswith("-") and "=" not in before and _SECRET.search(before) else word
        for before, word in zip(["", *words], words, strict=False)
    ]
    return without_secrets(
        shlex.join(
            _WITHIN.sub(r"\1***", word) if len(word.split()) > 1 else _ASSIGNED.sub(r"\1=***", word) for word in shown
        )
    )


def without_secrets(text: str) -> str:
    """Return the text with `***` for the values of environment variables that are named like secrets."""
    secrets = {value for name, value in os.environ.items() if _SECRET.search(name) and len(value) >= _LEAST_SECRET}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return _USERINFO_WITHIN.sub(r"\1***@", text)
