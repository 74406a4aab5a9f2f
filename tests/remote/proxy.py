"""A proxy in front of a store: it counts requests, and some of them meet with trouble on the way.

It passes on what it gets as it is, signatures included, so any server that speaks HTTP can stand behind it.
"""

import asyncio
import contextlib
import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import aiohttp
from aiohttp import web
from yarl import URL

Trouble = Literal["500", "reset", "lost reply", "cut", "slow", "AccessDenied", "ExpiredToken"]
"""A server error; a connection reset before the request is passed on, after it, or half-way through the reply; a reply
in small pieces with pauses; what S3 says to those who may not, or may not any more."""

TROUBLES: tuple[Trouble, ...] = ("500", "reset", "cut", "slow", "lost reply")
_BY_HOP = {"connection", "expect", "keep-alive", "transfer-encoding"}
_PIECE = 16 << 10
_REFUSALS = {"AccessDenied": 403, "ExpiredToken": 400}


@dataclass
class Proxy:
    """What was asked through the proxy, and what befalls those who ask."""

    upstream: str
    asked: list[str] = field(default_factory=list)
    """`METHOD /path` of each request, in order."""
    trouble: Callable[[str], Trouble | None] = lambda request: None
    struck: Counter[str] = field(default_factory=Counter)
    """How often which trouble befell a request."""
    url: str = ""
    latency_s: float = 0.0
    """By which each request is held back."""

    def count(self, *beginnings: str, ends: str = "") -> int:
        """Return how many requests began and ended so."""
        return sum(request.startswith(beginnings) and request.endswith(ends) for request in self.asked)

    def forget(self) -> None:
        """Count from here on, without trouble."""
        self.asked.clear()
        self.struck.clear()
        self.trouble = lambda request: None

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Pass a request on, and the reply back."""
        named = f"{request.method} {request.path}"
        self.asked.append(named)
        await asyncio.sleep(self.latency_s)
        trouble = self.trouble(named)
        if trouble:
            self.struck[trouble] += 1
        if request.headers.get("Expect"):
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await request.content.read()
        if trouble == "500":
            return web.Response(status=500)
        if trouble in _REFUSALS:
            said = f"<Error><Code>{trouble}</Code><Message>said on request</Message></Error>"
            return web.Response(status=_REFUSALS[trouble], text=said, content_type="application/xml")
        if trouble == "reset":
            return _hang_up(request)
        sent = [(name, value) for name, value in request.headers.items() if name.lower() not in _BY_HOP]
        url = URL(self.upstream + request.raw_path, encoded=True)
        left_out = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
        async with (
            aiohttp.ClientSession(auto_decompress=False, skip_auto_headers=left_out) as session,
            session.request(request.method, url, headers=sent, data=body or None, allow_redirects=False) as reply,
        ):
            if trouble == "lost reply":
                await reply.read()
                return _hang_up(request)
            return await self._pass_back(request, reply, trouble)

    async def _pass_back(
        self, request: web.BaseRequest, reply: aiohttp.ClientResponse, trouble: Trouble | None
    ) -> web.StreamResponse:
        answer = web.StreamResponse(status=reply.status, reason=reply.reason)
        answer.headers.extend((name, value) for name, value in reply.headers.items() if name.lower() not in _BY_HOP)
        await answer.prepare(request)
        half, passed = (reply.content_length or 0) // 2, 0
        async for piece in reply.content.iter_chunked(_PIECE):
            if trouble == "slow":
                await asyncio.sleep(0.02)
            if trouble == "cut" and passed + len(piece) > half:
                await answer.write(piece[: half - passed])
                await asyncio.sleep(0.01)  # what was written is on its way
                return _hang_up(request)
            await answer.write(piece)
            passed += len(piece)
        await answer.write_eof()
        return answer


def _hang_up(request: web.BaseRequest) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def some(seed: int, share: float = 0.05) -> Callable[[str], Trouble | None]:
    """Return what befalls a share of all requests, by the numbers of `seed`; every kind of trouble in turn."""
    generator, kinds = random.Random(seed), itertools.cycle(TROUBLES)
    return lambda request: next(kinds) if generator.random() < share else None


@contextlib.contextmanager
def proxied(upstream: str) -> Iterator[Proxy]:
    """Run a proxy of the server at `upstream`, in a thread of its own."""
    proxy = Proxy(upstream)
    loop = asyncio.new_event_loop()

    async def start() -> web.ServerRunner:
        runner = web.ServerRunner(web.Server(proxy.answer), shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return runner

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    runner = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()
