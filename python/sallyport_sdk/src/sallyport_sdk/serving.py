"""serve: from objects with roles to a plugin that its host can call."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, NoReturn

from . import _process
from ._calls import Call, Calls
from ._route import route
from ._run import Runner, mask, refusal
from .errors import Invalid, Refused, Unimplemented
from .host import Host, Link, Transport
from .pb import sallyport_pb2 as pb
from .roles import (
    Event,
    Evidence,
    Extension,
    Judgement,
    Notification,
    Notifier,
    Revocation,
    Revoker,
    Role,
    Urgency,
    Vender,
    Verifier,
)
from .scopes import Request, decode_object, encode_object, read_bounds, read_scope, write_issued

COOKIE = ("SALLYPORT_PLUGIN", "sallyport.plugin.v1")
_NAMES: dict[type[Role], str] = {
    Vender: "credential-vender",
    Revoker: "revoker",
    Notifier: "notifier",
    Verifier: "verifier",
    Extension: "extension",
}
_PREFIX = "sallyport.plugin.v1."


def serve(*roles: Role, name: str, version: str) -> NoReturn:
    """Runs the plugin until the host ends it. name and version are those of plugin.json."""
    try:
        server = Server(*roles, name=name, version=version)
    except ValueError as problem:
        sys.exit(str(problem))
    _process.run(server.services(), cookie=COOKIE, start=server.connect)


class Server:
    """Answers the calls of sallyport.plugin.v1. The test kit calls it without a process."""

    def __init__(self, *roles: Role, name: str, version: str, transport: Transport | None = None) -> None:
        self.name, self.version = name, version
        self.roles = {n: r for t, n in _NAMES.items() for r in roles if isinstance(r, t)}
        if not self.roles or sum(isinstance(r, t) for t in _NAMES for r in roles) != len(self.roles):
            raise ValueError(f"a plugin has at least one role, and each role once; there are: {_process.names(roles)}")
        self._objects = list(dict.fromkeys(roles))
        self._run = Runner()
        self._link = Link()
        self._transport = transport or self._link.call

    def services(self) -> dict[str, dict[str, Any]]:
        """The gRPC services of these roles."""
        unary, streaming = _process.unary, _process.streaming
        out = {
            _PREFIX + "Plugin": {
                "Info": unary(self.info, pb.InfoRequest),
                "Configure": unary(self.configure, pb.ConfigureRequest),
                "Calls": streaming(self.calls, pb.HostFrames),
                "Services": streaming(self.host_services, pb.HostAnswer),
            }
        }
        if "revoker" in self.roles:
            out[_PREFIX + "Revoker"] = {
                "SupportsRevocation": unary(self.supports, pb.SupportsRevocationRequest),
                "Revoke": unary(self.revoke, pb.RevokeRequest),
            }
        if "notifier" in self.roles:
            out[_PREFIX + "Notifier"] = {"Notify": unary(self.notify, pb.NotifyRequest)}
        if "verifier" in self.roles:
            out[_PREFIX + "Verifier"] = {"Judge": unary(self.judge, pb.JudgeRequest)}
        if "extension" in self.roles:
            out[_PREFIX + "Extension"] = {
                "Start": unary(self.start, pb.StartRequest),
                "Stop": unary(self.stop_extension, pb.StopRequest),
            }
        return out

    def connect(self) -> None:
        """Gives every role its host, whose loop is the running one."""
        for role in self._objects:
            role.host = Host(self._transport, asyncio.get_running_loop())

    async def info(self, _request: pb.InfoRequest) -> pb.InfoResponse:
        """Says who the plugin is."""
        kinds = dict.fromkeys(k for role in self._objects for k in role.kinds)
        return pb.InfoResponse(name=self.name, version=self.version, kinds=kinds, roles=self.roles)

    async def configure(self, request: pb.ConfigureRequest) -> pb.ConfigureResponse:
        """Hands the configuration on. What it says is kept out of the log from now on."""
        try:
            config = json.loads(request.config or b"{}")
            mask.learn(config)
            taking = [r for r in self._objects if type(r).configure is not Role.configure]
            if config and not taking:
                raise Invalid("this plugin takes no configuration")
            for role in taking:
                await self._run(role.configure, config)
        except Exception as problem:
            return pb.ConfigureResponse(error=refusal(problem, "Configure").reason or "it is refused")
        return pb.ConfigureResponse()

    async def calls(self, context: Any) -> None:
        """The stream of calls."""
        await Calls(self.answer).serve(context)

    async def host_services(self, context: Any) -> None:
        """The stream of services."""
        await self._link.serve(context)

    async def answer(self, frame: pb.HostFrame, call: Call) -> pb.PluginFrame:
        """One call of the stream."""
        body = frame.WhichOneof("body")
        vender, extension = self.roles.get("credential-vender"), self.roles.get("extension")
        if body in ("vet", "issue") and isinstance(vender, Vender):
            return await self._vend(vender, frame)
        if isinstance(extension, Extension):
            if body == "route" and extension.app is not None:
                return await route(extension.app, frame.route, call)
            if body == "hook":
                return await self._hook(extension, frame.hook)
            if body == "gate":
                return await self._gate(extension, frame.gate)
        raise Unimplemented("this plugin does not know this kind of call")

    async def _vend(self, vender: Vender, frame: pb.HostFrame) -> pb.PluginFrame:
        if frame.WhichOneof("body") == "vet":
            scope, _ = read_scope(frame.vet.scope)
            await self._run(vender.vet, scope)
            return pb.PluginFrame(vet=pb.VetResponse())
        scope, host = read_scope(frame.issue.requested)
        request = Request(scope, read_bounds(frame.issue.bounds), host)
        return pb.PluginFrame(issue=write_issued(await self._run(vender.issue, request)))

    async def _hook(self, extension: Extension, h: pb.HookRequest) -> pb.PluginFrame:
        event = Event(h.id, h.type, h.subject, h.position, h.at_unix_ms / 1000, decode_object(h.data))
        await self._run(extension.hook, event)
        return pb.PluginFrame(hook=pb.HookResponse())

    async def _gate(self, extension: Extension, g: pb.GateRequest) -> pb.PluginFrame:
        try:
            await self._run(extension.gate, g.gate, decode_object(g.question))
        except Refused as reason:
            return pb.PluginFrame(gate=pb.GateResponse(allow=False, reason=str(reason)))
        return pb.PluginFrame(gate=pb.GateResponse(allow=True))

    async def supports(self, request: pb.SupportsRevocationRequest) -> pb.SupportsRevocationResponse:
        """Whether credentials of a kind can be taken back."""
        revoker: Any = self.roles["revoker"]
        return pb.SupportsRevocationResponse(supported=bool(await self._run(revoker.supports, request.kind)))

    async def revoke(self, r: pb.RevokeRequest) -> pb.RevokeResponse:
        """Takes one credential back."""
        revoker: Any = self.roles["revoker"]
        asked = Revocation(r.kind, r.handle, r.value, r.reason, r.idempotency_id)
        try:
            await self._run(revoker.revoke, asked)
        except Exception as problem:
            return pb.RevokeResponse(refusal=refusal(problem, "revoke"))
        return pb.RevokeResponse()

    async def notify(self, n: pb.NotifyRequest) -> pb.NotifyResponse:
        """Tells of one event."""
        notifier: Any = self.roles["notifier"]
        urgency = Urgency(min(max(n.urgency, Urgency.LOW), Urgency.HIGH))
        message = Notification(n.event_id, n.kind, urgency, n.title, n.text, dict(n.fields), n.at_unix_ms / 1000)
        try:
            await self._run(notifier.notify, message)
        except Exception as problem:
            return pb.NotifyResponse(refusal=refusal(problem, "notify"))
        return pb.NotifyResponse()

    async def judge(self, j: pb.JudgeRequest) -> pb.JudgeResponse:
        """Judges one piece of evidence."""
        verifier: Any = self.roles["verifier"]
        evidence = Evidence(j.name, j.evidence, j.report_data, j.init_data, j.unbound, j.at_unix_ms / 1000)
        try:
            return _judged(await self._run(verifier.judge, evidence))
        except Exception as problem:
            return pb.JudgeResponse(refusal=refusal(problem, "judge"))

    async def start(self, _request: pb.StartRequest) -> pb.StartResponse:
        """Begins the extension."""
        extension: Any = self.roles["extension"]
        try:
            await self._run(extension.start)
        except Exception as problem:
            return pb.StartResponse(error=refusal(problem, "start").reason or "it cannot start")
        return pb.StartResponse()

    async def stop_extension(self, _request: pb.StopRequest) -> pb.StopResponse:
        """Ends the extension in good order."""
        extension: Any = self.roles["extension"]
        await self._run(extension.stop)
        return pb.StopResponse()



def _judged(j: Judgement) -> pb.JudgeResponse:
    checks = [
        pb.Check(name=c.name, expected=c.expected, seen=c.seen, result=pb.Result.Name(c.result), reason=c.reason, section=c.section)
        for c in j.checks
    ]
    return pb.JudgeResponse(
        device_class=pb.Class.Name(j.device),
        claims=encode_object(j.claims),
        report_data=j.report_data,
        init_data=j.init_data,
        checks=checks,
    )
