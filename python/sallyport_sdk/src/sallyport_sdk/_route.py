"""A route: one HTTP request, given to an ASGI application, its body in both directions as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, MutableMapping
from typing import Any
from urllib.parse import unquote_to_bytes

from ._calls import Call
from .pb import sallyport_pb2 as pb
from .roles import Principal

_PIECE = 32 << 10  # bytes of a body in one frame


class Gone(OSError):
    """The answer has ended already; ASGI wants an OSError."""


async def route(app: Any, request: pb.RouteRequest, call: Call, prefix: str = "") -> pb.PluginFrame:
    """Answers one request. The frames of the answer are sent as they are made; the last one is returned."""
    exchange = _Exchange(request, call)
    try:
        await app(scope(request, prefix), exchange.receive, exchange.send)
    finally:
        exchange.done.set()
    if not exchange.closed:
        raise RuntimeError("the application ended before its answer did")
    return pb.PluginFrame()


def scope(request: pb.RouteRequest, prefix: str) -> dict[str, Any]:
    """What ASGI calls the scope of a connection."""
    path = prefix + (request.path or "/")
    p = request.principal
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "https",
        "path": unquote_to_bytes(path).decode("utf-8", "replace"),
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": request.query.encode(),
        "headers": [(h.name.lower().encode("latin-1", "replace"), h.value.encode("latin-1", "replace")) for h in request.headers],
        "client": None,
        "server": None,
        "state": {"principal": Principal(p.id, p.kind, p.name, p.role), "request_id": request.request_id},
    }


class _Exchange:
    """One request and its answer."""

    def __init__(self, request: pb.RouteRequest, call: Call) -> None:
        self._call = call
        self._first: bytes | None = request.body
        self._more = request.more
        self._head: pb.RouteResponse | None = None
        self.done = asyncio.Event()
        self.closed = False

    async def receive(self) -> Mapping[str, Any]:
        """The next part of the request's body. What was taken is credited to the host."""
        if self._first is not None:
            data, self._first = self._first, None
        elif self._more:
            chunk = await self._call.chunks.get()
            data, self._more = chunk.data, chunk.more
        else:
            await self.done.wait()
            return {"type": "http.disconnect"}
        if self._more:
            self._call.grant(len(data))
        return {"type": "http.request", "body": data, "more_body": self._more}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Takes head and body of the answer."""
        if message["type"] == "http.response.start":
            if self._head is not None:
                raise RuntimeError("the application answered twice")
            headers = [pb.Header(name=_text(n).lower(), value=_text(v)) for n, v in message.get("headers", ())]
            self._head = pb.RouteResponse(status=message["status"], headers=headers)
        elif message["type"] == "http.response.body":
            if self._head is None:
                raise RuntimeError("the application sent a body before its head")
            await self._body(self._head, bytes(message.get("body", b"")), bool(message.get("more_body", False)))

    async def _body(self, head: pb.RouteResponse, data: bytes, more: bool) -> None:
        if self.closed:
            raise Gone("the answer has ended")
        while True:
            piece = data[: await self._call.spend(min(len(data), _PIECE))]
            data = data[len(piece) :]
            rest = more or bool(data)
            if self._call.begun:
                self._call.send(pb.PluginFrame(chunk=pb.BodyChunk(data=piece, more=rest)))
            else:
                self._call.begun = True
                head.body, head.more = piece, rest
                self._call.send(pb.PluginFrame(route=head))
            if not data:
                break
        if not more:
            self.closed = True
            self.done.set()


def _text(value: bytes | str) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
