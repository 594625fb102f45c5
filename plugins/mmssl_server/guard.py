"""What stands around every request: host, size, time, headers of the answer, figures, and what nobody foresaw."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Collection
from typing import final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmssl_server.limits import Limits
from mmssl_server.metrics import Metrics
from mmssl_server.refusals import LOG, Refusal, error

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@final
class Guard:
    """Wraps the app.

    Args:
        hosts: names by which it may be called; a page of somebody else whose name leads to 127.0.0.1 has another
            (DNS rebinding). None lets all in.
    """

    def __init__(self, app: ASGIApp, *, limits: Limits, metrics: Metrics, hosts: Collection[str] | None) -> None:
        self._app, self._limits, self._metrics, self._hosts = app, limits, metrics, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, is_begun = time.perf_counter(), 0, False

        async def answer(message: Message) -> None:
            nonlocal status, is_begun
            if message["type"] == "http.response.start":
                status, is_begun = message["status"], True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = None
        try:
            async with asyncio.timeout(self._limits.timeout):
                self._check(Headers(scope=scope))
                await self._app(scope, self._counted(receive), answer)
        except TimeoutError:
            refusal = error(
                504,
                f"this took longer than {self._limits.timeout:g} s and was given up; a change may be made nevertheless",
            )
        except Refusal as one:
            refusal = error(one.status, one.message, one.headers)
        except Exception:  # noqa: BLE001 - this request fails, the server lives
            name = uuid.uuid4().hex[:12]
            LOG.exception("error %s in %s %s", name, scope["method"], scope["path"])
            refusal = error(500, f"something unforeseen happened: the server's log tells of it as {name}")
        if refusal and not is_begun:
            await refusal(scope, receive, answer)
        route = getattr(scope.get("route"), "path", "unknown")
        self._metrics.requests.labels(route, status).inc()
        self._metrics.seconds.labels(route).observe(time.perf_counter() - began)

    def _check(self, headers: Headers) -> None:
        host = headers.get("host", "").rsplit("]", 1)
        name = host[0].strip("[") if len(host) == 2 else host[0].partition(":")[0]
        if self._hosts is not None and name.lower() not in self._hosts:
            raise Refusal(421, f"this server isn't {name!r}: start it with --allow-host {name} if it should be")
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._limits.body:
            raise self._too_large()

    def _counted(self, receive: Receive) -> Receive:
        left = self._limits.body

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise self._too_large()
            return message

        return counted

    def _too_large(self) -> Refusal:
        return Refusal(413, f"the request is too large: at most {self._limits.body:,} bytes are read")
