"""What keeps other web pages, other names and other people out: checks of Host and Origin, and strict headers.

A browser will send any page's request to a server on this machine. Another site cannot read the answers, but could make
marks, and with a name of its own that points here (DNS rebinding) could read everything. So the Host must be a name of
ours, a change must come from our own page, and the page may load and run nothing that is not ours.
"""

import ipaddress
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_READING = ("GET", "HEAD")
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_ANYWHERE = ("0.0.0.0", "::", "")  # noqa: S104 - recognised, not bound to


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server bound to `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def allowed_names(host: str) -> frozenset[str]:
    """Return the names that a request may give in its Host header when the server is bound to `host`.

    The port is not looked at: a tunnel may give it another one.
    """
    names = {*_LOOPBACK_NAMES}
    if host not in _ANYWHERE:
        names.add(host.lower())
    if not is_loopback(host):
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
    return frozenset(names)


class Guard:
    """ASGI middleware that refuses what does not come from the viewer's own page, and adds `HEADERS` to answers."""

    def __init__(self, app: App, *, host: str) -> None:
        self._app = app
        self._names = allowed_names(host)
        self._any_address = not is_loopback(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        refusal = self.refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send_guarded)
        else:
            await _refuse(send_guarded, *refusal)

    def refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Return status and reason for a request that must not be answered, or None."""
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        hosts = headers.get("host", [])
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return 421, "this server does not go by that name; use the address that fineclip view printed"
        site = headers.get("sec-fetch-site", ["none"])[0]
        navigating = headers.get("sec-fetch-mode", [""])[0] == "navigate"
        if site in ("cross-site", "same-site") and not (navigating and scope["method"] in _READING):
            return 403, "a request from another site"
        origins = headers.get("origin", [])
        if scope["method"] not in _READING and not origins:
            return 403, "a change needs the Origin of the viewer's own page"
        if any(urlsplit(origin).netloc != hosts[0] for origin in origins):
            return 403, "a request from another origin"
        return None

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self._names:
            return True
        # Bound to other interfaces, any address may lead here; a bare address cannot be rebound as a name can.
        return self._any_address and _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = reason.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
