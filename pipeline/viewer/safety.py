"""What keeps other web pages, other names and other people out: a token, checks of Host and Origin, strict headers.

A browser will send any page's request to a server on this machine. Another site cannot read the answers, but could make
marks, and with a name of its own that points here (DNS rebinding) could read everything. So the Host must be a name of
ours, a change must come from our own page, and the page may load and run nothing that is not ours.

Others who use this machine, or the same notebook or cluster portal, can send any header they like. So every address
begins with a token that is made at each start; the page's own addresses are relative and carry it on.
"""

import ipaddress
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
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
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def allowed_names(host: str, more: Iterable[str] = ()) -> frozenset[str]:
    """Return the names that a request may give in its Host header when the server is bound to `host`.

    `more` are names that a portal or tunnel goes by. The port is not looked at: a tunnel may give it another one.
    """
    names = {*_LOOPBACK_NAMES, *(name.lower() for name in more)}
    if host not in _ANYWHERE:
        names.add(host.lower())
    if not is_loopback(host):
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
    return frozenset(names)


def path_within(path: str, token: str) -> str | None:
    """Return the part of a request's path after the segment that is `token`, or None where there is none.

    What comes before is the prefix of a portal that does not take it away.
    """
    segments = path.split("/")
    for place, segment in enumerate(segments):
        if secrets.compare_digest(segment.encode("utf-8", "surrogatepass"), token.encode()):
            return "/".join(["", *segments[place + 1 :]])
    return None


class Guard:
    """ASGI middleware that refuses what does not come from the viewer's own page, and adds `HEADERS` to answers.

    The application sees paths as they are after the token.
    """

    def __init__(self, app: App, *, host: str, token: str, host_names: Iterable[str] = ()) -> None:
        self._app = app
        self._token = token
        self._names = allowed_names(host, host_names)
        self._portals = frozenset(name.lower() for name in host_names)
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
        path = path_within(scope["path"], self._token)
        if refusal is not None:
            await _answer(send_guarded, *refusal)
        elif path is None:
            await _answer(send_guarded, 403, "this address lacks the token: use the address that fineclip view printed")
        elif not path:  # relative addresses need the slash
            query = b"?" + scope["query_string"] if scope["query_string"] else b""
            await _answer(send_guarded, 307, "", location=f"{self._token}/".encode() + query)
        else:
            await self._app({**scope, "path": path, "root_path": ""}, receive, send_guarded)

    def refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Return status and reason for a request that must not be answered, whatever its path, or None."""
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        hosts = headers.get("host", [])
        name = _host_name(f"//{hosts[0]}") if len(hosts) == 1 else ""
        # Bound to other interfaces, any address may lead here; a bare address cannot be rebound as a name can.
        if name not in self._names and not (self._any_address and _address(name)):
            option = f", or start it with --host-name {name}" if name else ""
            return 421, f"this server does not go by that name; use the address that fineclip view printed{option}"
        site = headers.get("sec-fetch-site", ["none"])[0]
        navigating = headers.get("sec-fetch-mode", [""])[0] == "navigate"
        if site in ("cross-site", "same-site") and not (navigating and scope["method"] in _READING):
            return 403, "a request from another site"
        origins = headers.get("origin", [])
        if scope["method"] not in _READING and not origins:
            return 403, "a change needs the Origin of the viewer's own page"
        if not all(urlsplit(origin).netloc == hosts[0] or _host_name(origin) in self._portals for origin in origins):
            return 403, "a request from another origin; a portal's name is allowed by --host-name NAME"
        return None


def _host_name(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


async def _answer(send: Send, status: int, reason: str, *, location: bytes | None = None) -> None:
    body = reason.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    headers += [] if location is None else [(b"location", location)]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
