"""A client of one server of chat completions: how it is reached, and its errors as a person wants to read them.

A proxy that the environment names is used, but never for a server on this machine. What is said holds no secret, and
errors of the client are not chained to ours: their text may hold one.
"""

import contextlib
import ipaddress
import json
import os
import re
import socket
import ssl
import weakref
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2  # what the openai package itself sends with
import openai

from pipeline.caption.secrets import passwords, without_userinfo
from pipeline.errors import WorkError

_NO_KEY = "none"
"""What a server that asks for no key is given, since the client insists on one."""
_CONNECT_S = 10.0
_KEPT_S = 3.0
"""How long a connection without requests is kept: uvicorn, in which most such servers run, closes it after 5 s."""
_PATH = "/chat/completions"
_SENT_ON = (301, 302, 303, 307, 308)
_SAID = ("message", "detail", "error", "msg", "reason", "title")
"""Where servers put their words, in the JSON of an error."""
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
REMEDIES = {
    401: "name the environment variable of a valid key with --caption.api-key-env",
    402: "the account has no credit",
    403: "the key may not use this model",
    404: "check --caption.url (it ends in /v1) and --caption.model",
    405: "check --caption.url (it ends in /v1)",
    407: "the proxy wants a name and a password: give them in the environment's proxy URL",
}
"""Statuses that hold for every request, and what to do about each."""


class Client:
    """Sends requests to one server, on as many kept connections as there are threads."""

    def __init__(self, url: str, *, key: str | None, timeout_s: float, concurrency: int) -> None:
        """Connect to nothing yet. Raises WorkError where the environment names a proxy or a file of certificates that
        cannot be used.
        """
        self.name = without_userinfo(url)
        """The server's URL, as messages have it."""
        self._host = urlsplit(url).hostname or ""
        proxy = proxy_for(url)
        self._proxy = proxy and without_userinfo(proxy)
        secrets = [*([key] if key else []), *passwords(url), *passwords(proxy or "")]
        self._secrets = sorted(secrets, key=len, reverse=True)
        self._models: list[str] = []
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=concurrency, keepalive_expiry=_KEPT_S)
        try:
            http = openai.DefaultHttpxClient(
                proxy=proxy,
                verify=httpx2.create_ssl_context(),  # which reads SSL_CERT_FILE
                trust_env=False,  # it would make ready for all proxies of the environment, those not asked too
                limits=limits,
                follow_redirects=False,  # what is sent on by 301 or 302 arrives without its question
            )
        except (ImportError, OSError, ValueError, httpx2.InvalidURL) as error:  # of what the environment says
            raise WorkError(f"{self.name} cannot be asked: {self._unusable(error)}") from None
        weakref.finalize(self, http.close)
        self.api = openai.OpenAI(
            base_url=url,
            api_key=key or _NO_KEY,
            timeout=openai.Timeout(timeout_s, connect=min(_CONNECT_S, timeout_s)),
            max_retries=0,  # they are ours
            http_client=http,
        )

    def hello(self, timeout_s: float) -> None:
        """Return when the server answers anything at all. Raises openai's errors where it does not in time."""
        with contextlib.suppress(openai.APIStatusError):
            self._models = _named_in(self.api.models.with_raw_response.list(timeout=timeout_s).http_response.content)

    def without_secrets(self, text: str) -> str:
        """Return the text with `***` in the place of each secret."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def remedy(self, error: openai.APIError) -> str | None:
        """Return what to do about an error that every request will meet; None for any other."""
        status = getattr(error, "status_code", None)
        if status == 404 and self._models:
            return f"--caption.model must be one of the server's: {', '.join(self._models[:10])}"
        if status in REMEDIES:
            return REMEDIES[status]
        if isinstance(error, openai.APIStatusError) and status in _SENT_ON:
            there = urljoin(str(error.request.url), error.response.headers.get("location", "")).partition("?")[0]
            known = self.without_secrets(without_userinfo(there)).removesuffix("/").removesuffix(_PATH)
            return f"it sends requests on to another address; give that as --caption.url: {known}"
        cause = _root(error)
        if isinstance(cause, socket.gaierror) and cause.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", 0)):
            return "check the host in " + ("the proxy's URL" if self._proxy else "--caption.url")
        if isinstance(cause, ssl.SSLCertVerificationError):
            return "name a file with your authority's certificate in SSL_CERT_FILE, if you trust the server"
        if isinstance(cause, ssl.SSLError) and "WRONG_VERSION" in str(cause).upper():
            return "it speaks no TLS on this port: http:// instead of https:// in --caption.url"
        return None

    def words(self, error: openai.APIError | None) -> str:
        """Return the error in one line: the server's own words where it said any."""
        if error is None:
            return "no answer"
        if isinstance(error, openai.APIStatusError):
            text = f"{error.status_code}: {' '.join(_said(error.body)) or error.message}"
            if error.status_code == 413:
                text += "; lower --caption.max-side or --caption.jpeg-quality, or let the server take larger requests"
        elif isinstance(error, openai.APIConnectionError):
            text = self._unreached(error)
        else:
            text = " ".join(_said(error.body)) or error.message
        if self._proxy is not None:
            text += f" (asked through the proxy {self._proxy} that the environment names; {self._around})"
        return " ".join(self.without_secrets(text).split())[:700]

    @property
    def _around(self) -> str:
        return f"NO_PROXY={self._host} in the environment goes around it"

    def _unusable(self, error: Exception) -> str:
        """Return what the environment says that no client can be made of, and what to do."""
        if isinstance(error, OSError):  # of TLS too
            named = (f"{name}={os.environ[name]} in the environment" for name in _CERTIFICATES if os.environ.get(name))
            return f"the certificates of {next(named, 'this machine')} cannot be read ({error})"
        why = self.without_secrets(str(error))
        if isinstance(error, ImportError):
            why = "a SOCKS proxy needs a package: pip install 'httpx2[socks]'"
        return f"the proxy {self._proxy} that the environment names cannot be used: {why}; {self._around}"

    def _unreached(self, error: openai.APIConnectionError) -> str:
        """Return why no answer came at all."""
        cause = _root(error)
        match cause:
            case ConnectionRefusedError():
                return f"connection refused: nothing listens {'at the proxy' if self._proxy else 'there'}"
            case socket.gaierror():
                return f"the host's name is not known ({cause.strerror})"
            case ssl.SSLError():
                return f"no secure connection ({cause})"
        if isinstance(error, openai.APITimeoutError):
            connecting = "Connect" in type(error.__cause__).__name__
            return "no connection: does that host exist, and let this one in?" if connecting else "it is silent"
        return f"{error.message} ({cause})"


def proxy_for(url: str) -> str | None:
    """Return the proxy that the environment names for a URL; None where it names none, and for this machine itself."""
    parts = urlsplit(url)
    host, proxies = parts.hostname or "", getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    with contextlib.suppress(ValueError):  # a name, no address
        address = ipaddress.ip_address(host)
        if address.is_loopback or any(address in network for network in _networks(proxies.get("no", ""))):
            return None
    if not proxy or host == "localhost" or host.endswith(".localhost") or proxy_bypass(host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _named_in(content: bytes) -> list[str]:
    """Return the models that a server lists, in OpenAI's form or as a list of its own; none where it says it otherwise.

    They are for messages alone: what the list looks like says nothing about the answers.
    """
    try:
        listed = json.loads(content)
    except (ValueError, RecursionError):
        return []
    entries = listed.get("data") if isinstance(listed, dict) else listed
    names = (
        [entry.get("id") if isinstance(entry, dict) else entry for entry in entries]
        if isinstance(entries, list)
        else []
    )
    return [name for name in names if isinstance(name, str)]


def _networks(entries: str) -> Iterator[Any]:
    for entry in entries.split(","):
        with contextlib.suppress(ValueError):
            yield ipaddress.ip_network(entry.strip(), strict=False)


def _root(error: BaseException) -> BaseException:
    """Return the first error of the chain that led to this one."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


def _said(body: object) -> Iterator[str]:
    """Yield what a server's JSON or text says: OpenAI's `message`, FastAPI's `detail` with its places, plain words."""
    match body:
        case str():
            yield re.sub(r"<[^>]*>", " ", body)
        case list():
            for one in body:
                yield from _said(one)
        case dict():
            place = ".".join(map(str, body["loc"])) + ":" if isinstance(body.get("loc"), list) else ""
            for name in _SAID:
                words = [*_said(body.get(name))]
                if words:
                    yield " ".join([place, *words]).strip()
                    return
