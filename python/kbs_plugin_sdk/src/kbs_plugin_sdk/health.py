"""grpc.health.v1 without its package, which not every system has: two messages with one
field each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from .service import SERVICE

_SERVING, _NOT_SERVING, _SERVICE_UNKNOWN = b"\x08\x01", b"\x08\x02", b"\x08\x03"


class Health:
    """Says that the plugin serves, under its name and the empty one, until :meth:`stop`."""

    def __init__(self) -> None:
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        self._stopping.set()

    def _state(self) -> bytes:
        return _NOT_SERVING if self._stopping.is_set() else _SERVING

    async def check(self, request: bytes, context: Any) -> bytes:
        if not _known(request):
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return self._state()

    async def watch(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        if not _known(request):
            yield _SERVICE_UNKNOWN
            await asyncio.Event().wait()
        yield self._state()
        await self._stopping.wait()
        yield _NOT_SERVING

    def add_to(self, server: Any) -> None:
        handlers = {
            "Check": grpc.unary_unary_rpc_method_handler(self.check),
            "Watch": grpc.unary_stream_rpc_method_handler(self.watch),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", handlers),))


def _known(request: bytes) -> bool:
    name = SERVICE.encode()
    return request in (b"", b"\x0a\x00", b"\x0a" + bytes([len(name)]) + name)
