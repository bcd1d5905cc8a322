"""Tests a plugin without a host: calls go through the wire's messages, as they would.

    plugin = Harness(Greeter())
    self.assertEqual(plugin.issue("greeting", {"name": "world"}).value, b"hello, world")

Harness calls it; FakeHost is its host, with a key-value space, a database, and a list of
what it was told; principal makes somebody who calls a route. What a plugin refuses is
raised as the Refused that it raised; a failure as Unavailable, without its text.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import sqlite3
import threading
import weakref
from collections.abc import Awaitable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ._calls import Calls
from .errors import of_wire
from .host import read_value, write_value
from .pb import sallyport_pb2 as pb
from ._platform import as_role
from .extensions import AttestationExtension
from .roles import Notification, Principal, Role
from .scopes import Bounds, Issued, Scope, encode_object, read_scope
from .serving import Server

T = TypeVar("T")
PIECE = 64 << 10
_ROWS = re.compile(r"\s*(select|values|with|insert|replace|update|delete)\b", re.IGNORECASE)
SERVICES = ("log", "kv", "database", "events", "signals", "vend")


def principal(role: str = "admin", *, kind: str = "operator", name: str = "alice", id: str = "01TEST") -> Principal:
    """Somebody who calls a route."""
    return Principal(id, kind, name, role)


@dataclass
class FakeHost:
    """A host of the test's own. It grants the services that it is told, and remembers what it hears."""

    services: tuple[str, ...] = SERVICES
    vend_value: bytes = b"a-credential"
    logged: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    emitted: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    leaks: list[pb.Raise] = field(default_factory=list)
    vended: list[Scope] = field(default_factory=list)
    kv: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    database: sqlite3.Connection = field(
        default_factory=lambda: sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
    )

    async def __call__(self, call: pb.HostCall) -> pb.HostAnswer:
        """Answers one call, as a host does."""
        body = call.WhichOneof("body") or ""
        service = {"emit": "events", "raise": "signals", "query": "database", "exec": "database"}.get(body, body[:2] if body[:2] == "kv" else body)
        if service not in self.services:
            return _refused(pb.CODE_DENIED, f"the service {service} was not granted")
        try:
            answer: pb.HostAnswer = getattr(self, "_" + body)(getattr(call, body))
        except PermissionError as problem:
            return _refused(pb.CODE_DENIED, str(problem))
        except sqlite3.Error as problem:
            return _refused(pb.CODE_INVALID, str(problem))
        return answer

    def _log(self, m: pb.Log) -> pb.HostAnswer:
        self.logged.append((pb.Log.Level.Name(m.level).removeprefix("LEVEL_").lower(), m.message, dict(m.fields)))
        return pb.HostAnswer(done=pb.Done())

    def _kv_get(self, m: pb.KvGet) -> pb.HostAnswer:
        value, version = self.kv.get(m.key, (b"", 0))
        return pb.HostAnswer(kv_value=pb.KvValue(value=value, version=version))

    def _kv_put(self, m: pb.KvPut) -> pb.HostAnswer:
        version = self.kv.get(m.key, (b"", 0))[1]
        if m.HasField("if_version") and m.if_version != version:
            return _refused(pb.CODE_CONFLICT, "the key has another version now")
        self.kv[m.key] = (m.value, version + 1)
        return pb.HostAnswer(kv_value=pb.KvValue(version=version + 1))

    def _kv_delete(self, m: pb.KvDelete) -> pb.HostAnswer:
        if m.HasField("if_version") and m.if_version != self.kv.get(m.key, (b"", 0))[1]:
            return _refused(pb.CODE_CONFLICT, "the key has another version now")
        self.kv.pop(m.key, None)
        return pb.HostAnswer(done=pb.Done())

    def _kv_list(self, m: pb.KvList) -> pb.HostAnswer:
        found = sorted(k for k in self.kv if k.startswith(m.prefix) and k > m.after)
        limit = m.limit if 0 < m.limit <= 1000 else 1000
        return pb.HostAnswer(kv_keys=pb.KvKeys(keys=found[:limit], more=len(found) > limit))

    def _run(self, s: pb.Statement) -> sqlite3.Cursor:
        if not _ROWS.match(s.sql):
            raise PermissionError("an extension reads and changes rows; in a test, make tables with FakeHost.database")
        numbered = {str(i): read_value(v) for i, v in enumerate(s.arguments, 1)}
        return self.database.execute(s.sql, numbered)

    def _query(self, m: pb.Query) -> pb.HostAnswer:
        cursor, limit = self._run(m.statement), m.max_rows if 0 < m.max_rows <= 10000 else 10000
        rows = cursor.fetchmany(limit + 1)
        made = [pb.Row(values=[write_value(v) for v in r]) for r in rows[:limit]]
        columns = [c[0] for c in cursor.description or ()]
        return pb.HostAnswer(rows=pb.Rows(columns=columns, rows=made, more=len(rows) > limit))

    def _exec(self, m: pb.Exec) -> pb.HostAnswer:
        self.database.execute("BEGIN")
        try:
            changed = [max(self._run(s).rowcount, 0) for s in m.statements]
        except (sqlite3.Error, PermissionError):
            self.database.execute("ROLLBACK")
            raise
        self.database.execute("COMMIT")
        return pb.HostAnswer(affected=pb.Affected(rows=changed))

    def _emit(self, m: pb.Emit) -> pb.HostAnswer:
        self.emitted.append((m.type, dict(m.data)))
        return pb.HostAnswer(done=pb.Done())

    def _raise(self, m: pb.Raise) -> pb.HostAnswer:
        self.leaks.append(m)
        return pb.HostAnswer(raised=pb.Raised(record=f"01RECORD{len(self.leaks)}", matches=1))

    def _vend(self, m: pb.Vend) -> pb.HostAnswer:
        scope, _ = read_scope(pb.Scope(kind=m.kind, params=m.params, ttl_seconds=m.ttl_seconds))
        self.vended.append(scope)
        wire = pb.Scope(kind=m.kind, params=m.params, ttl_seconds=m.ttl_seconds)
        return pb.HostAnswer(vended=pb.Vended(grant=f"01GRANT{len(self.vended)}", scope=wire, value=self.vend_value))


def _refused(code: Any, reason: str) -> pb.HostAnswer:
    return pb.HostAnswer(refusal=pb.Refusal(code=code, reason=reason))


@dataclass(frozen=True)
class Response:
    """What a route answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


class _Wire:
    """Both ends of a stream of calls, in memory. It is the context that Calls reads and writes."""

    def __init__(self) -> None:
        self._in: asyncio.Queue[pb.HostFrames | None] = asyncio.Queue()
        self.answers: dict[int, asyncio.Queue[pb.PluginFrame]] = {}

    def put(self, *frames: pb.HostFrame) -> None:
        self._in.put_nowait(pb.HostFrames(frames=frames))

    async def read(self) -> pb.HostFrames | None:
        message = await self._in.get()
        return pb.HostFrames.FromString(message.SerializeToString()) if message else None

    async def write(self, message: pb.PluginFrames) -> None:
        for frame in pb.PluginFrames.FromString(message.SerializeToString()).frames:
            if frame.id in self.answers:
                self.answers[frame.id].put_nowait(frame)


class Harness:
    """A plugin that is being tested. It lives in a thread of its own; use it from one thread."""

    def __init__(
        self, *roles: Role | AttestationExtension, host: FakeHost | None = None, config: Mapping[str, Any] | None = None, timeout: float = 10
    ) -> None:
        self.host = host or FakeHost()
        self._timeout = timeout
        self._numbers = itertools.count(1)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=_live, args=(self._loop,), daemon=True).start()
        self._server = Server(*map(as_role, roles), name="test", version="0.0.0", transport=self.host)
        self._wire = _Wire()
        stream = self._do(self._begin())
        self.close = weakref.finalize(self, _close, self._loop, stream)  # also by itself, when the harness goes
        if config is not None:
            answer = self._do(self._server.configure(pb.ConfigureRequest(config=json.dumps(config).encode())))
            if answer.error:
                raise ValueError(answer.error)
        if "extension" in self._server.roles and (error := self._do(self._server.start(pb.StartRequest())).error):
            raise ValueError(error)

    async def _begin(self) -> asyncio.Future[None]:
        self._server.connect()
        return asyncio.ensure_future(Calls(self._server.answer).serve(self._wire))

    def _do(self, call: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result(self._timeout)

    async def _ask(self, frame: pb.HostFrame) -> pb.PluginFrame:
        frame.id = next(self._numbers)
        answers = self._wire.answers[frame.id] = asyncio.Queue()
        self._wire.put(frame)
        answer = await answers.get()
        if answer.WhichOneof("body") == "refusal":
            raise of_wire(answer.refusal)
        return answer

    def vet(self, kind: str, params: Mapping[str, Any] | None = None, ttl: int = 60) -> None:
        """Asks whether a scope is well-formed."""
        wire = pb.Scope(kind=kind, params=encode_object(params or {}), ttl_seconds=ttl)
        self._do(self._ask(pb.HostFrame(vet=pb.VetRequest(scope=wire))))

    def issue(
        self,
        kind: str,
        params: Mapping[str, Any] | None = None,
        ttl: int = 60,
        *,
        bounds: Bounds | None = None,
        host: Mapping[str, str] | None = None,
    ) -> Issued:
        """Asks for a credential. host are parameters that the host adds, without their prefix."""
        every = {**(params or {}), **{f"host.{n}": v for n, v in (host or {}).items()}}
        limits = bounds or Bounds(kind, {}, ttl)
        request = pb.IssueRequest(
            requested=pb.Scope(kind=kind, params=encode_object(every), ttl_seconds=ttl),
            bounds=pb.Bounds(kind=limits.kind, max_params=encode_object(limits.max_params), max_ttl_seconds=limits.max_ttl),
        )
        r = self._do(self._ask(pb.HostFrame(issue=request))).issue
        scope, _ = read_scope(r.scope)
        return Issued(scope, r.value, r.expires_at_unix, r.handle)

    def revoke(self, kind: str, handle: str = "", value: bytes = b"", reason: str = "test", id: str = "1") -> None:
        """Takes a credential back."""
        request = pb.RevokeRequest(kind=kind, handle=handle, value=value, reason=reason, idempotency_id=id)
        self._unless(self._do(self._server.revoke(request)))

    def supports(self, kind: str) -> bool:
        """Whether credentials of a kind can be taken back."""
        return self._do(self._server.supports(pb.SupportsRevocationRequest(kind=kind))).supported

    def notify(self, n: Notification) -> None:
        """Tells people."""
        request = pb.NotifyRequest(
            event_id=n.id, kind=n.kind, urgency=pb.Urgency.Name(n.urgency), title=n.title, text=n.text,
            fields=n.fields, at_unix_ms=int(n.at * 1000),
        )  # fmt: skip
        self._unless(self._do(self._server.notify(request)))

    def judge(self, name: str, evidence: bytes, report_data: bytes = b"", init_data: bytes = b"") -> pb.JudgeResponse:
        """Judges evidence, and gives what the host would get."""
        request = pb.JudgeRequest(name=name, evidence=evidence, report_data=report_data, init_data=init_data)
        answer = self._do(self._server.judge(request))
        self._unless(answer)
        return answer

    @staticmethod
    def _unless(answer: Any) -> None:
        if answer.HasField("refusal"):
            raise of_wire(answer.refusal)

    def event(self, type: str, subject: str = "", *, id: str = "1", position: int = 1, at: float = 0, **data: Any) -> None:
        """Injects an event."""
        hook = pb.HookRequest(
            id=id, position=position, type=type, subject=subject, at_unix_ms=int(at * 1000), data=encode_object(data)
        )
        self._do(self._ask(pb.HostFrame(hook=hook)))

    def gate(self, gate: str, **question: Any) -> tuple[bool, str]:
        """Asks a gate: whether it allows, and why not."""
        request = pb.GateRequest(gate=gate, question=encode_object(question))
        answer = self._do(self._ask(pb.HostFrame(gate=request))).gate
        return answer.allow, answer.reason

    def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        body: bytes = b"",
        query: str = "",
        headers: Mapping[str, str] | None = None,
        principal: Principal | None = None,
    ) -> Response:
        """Calls a route; path is below the prefix, as a host gives it."""
        sent = dict(headers or {})
        if json is not None:
            body, sent["content-type"] = _json(json), "application/json"
        sent.setdefault("content-length", str(len(body)))
        who = principal or globals()["principal"]()
        head = pb.RouteRequest(
            method=method, path=path, query=query, body=body[:PIECE], more=len(body) > PIECE, request_id="test",
            headers=[pb.Header(name=n.lower(), value=v) for n, v in sent.items()],
            principal=pb.Principal(id=who.id, kind=who.kind, name=who.name, role=who.role),
        )  # fmt: skip
        return self._do(self._request(head, body[PIECE:]))

    async def _request(self, head: pb.RouteRequest, rest: bytes) -> Response:
        frame = pb.HostFrame(route=head)
        asking = asyncio.ensure_future(self._ask(frame))
        await asyncio.sleep(0)  # it has its number
        while rest:
            piece, rest = rest[:PIECE], rest[PIECE:]
            self._wire.put(pb.HostFrame(id=frame.id, chunk=pb.BodyChunk(data=piece, more=bool(rest))))
        answer = await asking
        if answer.WhichOneof("body") == "credit":
            answer = await self._next(frame.id)
        out, more = answer.route, answer.route.more
        body = bytearray(out.body)
        while more:
            self._wire.put(pb.HostFrame(id=frame.id, credit=pb.Credit(bytes=PIECE)))
            part = await self._next(frame.id)
            body += part.chunk.data
            more = part.chunk.more
        return Response(out.status, {h.name: h.value for h in out.headers}, bytes(body))

    async def _next(self, number: int) -> pb.PluginFrame:
        """The next part of an answer: credit for the request's body is none."""
        while True:
            part = await self._wire.answers[number].get()
            which = part.WhichOneof("body")
            if which == "refusal":
                raise of_wire(part.refusal)
            if which != "credit":
                return part


def _live(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


def _close(loop: asyncio.AbstractEventLoop, stream: asyncio.Future[None]) -> None:
    async def end() -> None:
        stream.cancel()
        await asyncio.wait([stream], timeout=5)
        loop.stop()

    asyncio.run_coroutine_threadsafe(end(), loop)


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()
