"""The services of the host, for what the manifest's capabilities.services asks for.

    value, version = self.host.kv_get("cursor")

The methods of Host block and belong into `def` functions. In `async def` functions
await those of host.asynchronous, which have the same names. What was not granted is
refused with Denied. An interrupted call has an unknown outcome.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from .errors import Unavailable, of_wire
from .pb import sallyport_pb2 as pb
from .scopes import Scope, encode_object, read_scope

T = TypeVar("T")
SQLValue = None | int | float | str | bytes
Transport = Callable[[pb.HostCall], Awaitable[pb.HostAnswer]]

TIMEOUT = 10.0  # seconds that a call to the host may take


@dataclass(frozen=True)
class Rows:
    """What a query found. more: there is more than was asked for."""

    columns: Sequence[str]
    rows: Sequence[tuple[SQLValue, ...]]
    more: bool = False


@dataclass(frozen=True)
class Vended:
    """A credential that the host vended to this plugin."""

    grant: str
    scope: Scope
    value: bytes
    expires_at: int
    private_key: bytes = b""  # of a key pair that the host made for it


class AsyncHost:
    """The services, as coroutines."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def _call(self, **body: Any) -> pb.HostAnswer:
        answer = await asyncio.wait_for(self._transport(pb.HostCall(**body)), TIMEOUT)
        if answer.WhichOneof("body") == "refusal":
            raise of_wire(answer.refusal)
        return answer

    async def log(self, message: str, *, level: str = "info", **fields: str) -> None:
        """Writes a line to the host's log; level is debug, info, warn or error."""
        await self._call(log=pb.Log(level=f"LEVEL_{level.upper()}", message=message, fields=fields))

    async def kv_get(self, key: str) -> tuple[bytes, int]:
        """Value and version of a key of this plugin's own; version 0: it is not there."""
        answer = await self._call(kv_get=pb.KvGet(key=key))
        return answer.kv_value.value, answer.kv_value.version

    async def kv_put(self, key: str, value: bytes, if_version: int | None = None) -> int:
        """Writes a key, and gives its version. Conflict: it does not have if_version (0: absent) now."""
        answer = await self._call(kv_put=pb.KvPut(key=key, value=value, if_version=if_version))
        return answer.kv_value.version

    async def kv_delete(self, key: str, if_version: int | None = None) -> None:
        """Removes a key."""
        await self._call(kv_delete=pb.KvDelete(key=key, if_version=if_version))

    async def kv_keys(self, prefix: str = "", after: str = "", limit: int = 0) -> tuple[list[str], bool]:
        """Keys with a prefix after one, sorted, and whether there are more."""
        answer = await self._call(kv_list=pb.KvList(prefix=prefix, after=after, limit=limit))
        return list(answer.kv_keys.keys), answer.kv_keys.more

    async def query(self, sql: str, *arguments: SQLValue, max_rows: int = 0) -> Rows:
        """Reads rows of this plugin's own database; arguments are $1 and so on."""
        answer = await self._call(query=pb.Query(statement=statement(sql, arguments), max_rows=max_rows))
        rows = [tuple(read_value(v) for v in r.values) for r in answer.rows.rows]
        return Rows(list(answer.rows.columns), rows, answer.rows.more)

    async def execute(self, *statements: tuple[Any, ...]) -> list[int]:
        """Runs statements, each (sql, argument, ...), in one transaction; gives the rows that each changed."""
        made = [statement(s[0], s[1:]) for s in statements]
        answer = await self._call(exec=pb.Exec(statements=made))
        return list(answer.affected.rows)

    async def emit(self, type: str, **data: str) -> None:
        """Records an event plugin.event of this plugin in the ledger, with its type. No secrets."""
        await self._call(emit=pb.Emit(type=type, data=data))

    async def report_leak(
        self, *, value: bytes = b"", sha256: bytes = b"", source: str, location: str = "", reason: str = "", key: str = ""
    ) -> tuple[str, int]:
        """Reports a leaked credential, by its value or the SHA-256 of it: the record, and how many grants matched."""
        what = {"sha256": sha256} if sha256 else {"value": value}
        answer = await self._call(
            **{"raise": pb.Raise(source=source, location=location, reason=reason, idempotency_key=key, **what)}
        )
        return answer.raised.record, answer.raised.matches

    async def vend(self, kind: str, params: Mapping[str, Any], ttl: int, key: str = "") -> Vended:
        """Asks for a credential of a kind that the manifest names under capabilities.services.vend; policy decides."""
        answer = await self._call(
            vend=pb.Vend(kind=kind, params=encode_object(params), ttl_seconds=ttl, idempotency_key=key)
        )
        scope, _ = read_scope(answer.vended.scope)
        v = answer.vended
        return Vended(v.grant, scope, v.value, v.expires_at_unix, v.private_key)


class Host:
    """The services, for functions that may block."""

    def __init__(self, transport: Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.asynchronous = AsyncHost(transport)
        self._loop = loop

    def _wait(self, call: Coroutine[Any, Any, T]) -> T:
        try:
            running: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._loop:
            call.close()
            raise RuntimeError("in an async function await host.asynchronous, which has the same methods")
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()

    def log(self, message: str, *, level: str = "info", **fields: str) -> None:
        """See AsyncHost.log."""
        self._wait(self.asynchronous.log(message, level=level, **fields))

    def kv_get(self, key: str) -> tuple[bytes, int]:
        """See AsyncHost.kv_get."""
        return self._wait(self.asynchronous.kv_get(key))

    def kv_put(self, key: str, value: bytes, if_version: int | None = None) -> int:
        """See AsyncHost.kv_put."""
        return self._wait(self.asynchronous.kv_put(key, value, if_version))

    def kv_delete(self, key: str, if_version: int | None = None) -> None:
        """See AsyncHost.kv_delete."""
        self._wait(self.asynchronous.kv_delete(key, if_version))

    def kv_keys(self, prefix: str = "", after: str = "", limit: int = 0) -> tuple[list[str], bool]:
        """See AsyncHost.kv_keys."""
        return self._wait(self.asynchronous.kv_keys(prefix, after, limit))

    def query(self, sql: str, *arguments: SQLValue, max_rows: int = 0) -> Rows:
        """See AsyncHost.query."""
        return self._wait(self.asynchronous.query(sql, *arguments, max_rows=max_rows))

    def execute(self, *statements: tuple[Any, ...]) -> list[int]:
        """See AsyncHost.execute."""
        return self._wait(self.asynchronous.execute(*statements))

    def emit(self, type: str, **data: str) -> None:
        """See AsyncHost.emit."""
        self._wait(self.asynchronous.emit(type, **data))

    def report_leak(self, **report: Any) -> tuple[str, int]:
        """See AsyncHost.report_leak."""
        return self._wait(self.asynchronous.report_leak(**report))

    def vend(self, kind: str, params: Mapping[str, Any], ttl: int, key: str = "") -> Vended:
        """See AsyncHost.vend."""
        return self._wait(self.asynchronous.vend(kind, params, ttl, key))


class Link:
    """The stream of services, which the host opens: many calls at a time, each with its number."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[pb.HostAnswer]] = {}
        self._context: Any = None
        self._opened = asyncio.Event()
        self._slots = asyncio.Semaphore(1)
        self._sending = asyncio.Lock()

    async def serve(self, context: Any) -> None:
        """Lives as long as the host keeps the stream open."""
        first = await context.read()
        if not isinstance(first, pb.HostAnswer) or first.WhichOneof("body") != "welcome":
            return
        self._slots = asyncio.Semaphore(max(1, first.welcome.max_outstanding))
        self._context = context
        self._opened.set()
        try:
            while isinstance(answer := await context.read(), pb.HostAnswer):
                future = self._waiting.pop(answer.id, None)
                if future and not future.done():
                    future.set_result(answer)
        finally:
            self._opened.clear()
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(Unavailable("the host's services ended; the outcome is not known"))
            self._waiting.clear()

    async def call(self, message: pb.HostCall) -> pb.HostAnswer:
        """One call and its answer. Before the host has opened the stream it waits."""
        await self._opened.wait()
        async with self._slots:
            message.id = next(self._numbers)
            future = asyncio.get_running_loop().create_future()
            self._waiting[message.id] = future
            try:
                async with self._sending:
                    await self._context.write(message)
                answer: pb.HostAnswer = await future
                return answer
            finally:
                self._waiting.pop(message.id, None)


def statement(sql: str, arguments: Sequence[SQLValue]) -> pb.Statement:
    """A statement for the wire."""
    return pb.Statement(sql=sql, arguments=[write_value(a) for a in arguments])


def write_value(value: SQLValue) -> pb.Value:
    """A value for the wire; bool is an integer."""
    if value is None:
        return pb.Value()
    if isinstance(value, int):
        return pb.Value(integer=int(value))
    if isinstance(value, float):
        return pb.Value(real=value)
    if isinstance(value, str):
        return pb.Value(text=value)
    return pb.Value(blob=bytes(value))


def read_value(value: pb.Value) -> SQLValue:
    """A value from the wire."""
    which = value.WhichOneof("value")
    found: SQLValue = getattr(value, which) if which else None
    return found
