"""The roles of agentkms.plugin.v1: AgentKMS itself and Sallyport run what serves them.

A number of a parameter is a float here. To refuse, raise a Refused: its text travels as the
contract's error.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NoReturn

from google.protobuf import json_format

from . import _process
from ._run import Runner
from .errors import Refused
from .pb import agentkms_pb2 as pb
from .scopes import Anomaly, Bounds, Issued, Scope

COOKIE = ("PLUGIN_MAGIC_COOKIE", "agentkms_plugin_v1")


class ScopeValidator(ABC):
    """Checks and narrows scopes (role scope-validator)."""

    @abstractmethod
    def validate(self, scope: Scope) -> Awaitable[None] | None:
        """Checks a scope, before and after it was narrowed."""

    @abstractmethod
    def narrow(self, scope: Scope, bounds: Bounds) -> Scope | Awaitable[Scope]:
        """The part of a scope that lies within bounds."""


class ScopeAnalyzer(ABC):
    """Looks for what is unusual (role scope-analyzer)."""

    @abstractmethod
    def analyze(self, scope: Scope) -> Iterable[Anomaly] | Awaitable[Iterable[Anomaly]]:
        """What is unusual about a scope. It blocks nothing."""


class ScopeSerializer(ABC):
    """Speaks the provider's format (role scope-serializer)."""

    @abstractmethod
    def serialize(self, scope: Scope) -> bytes | Awaitable[bytes]:
        """A scope as the provider takes it."""


class CredentialVender(ABC):
    """Makes credentials (role credential-vender)."""

    @abstractmethod
    def vend(self, scope: Scope) -> Issued | Awaitable[Issued]:
        """A credential for a scope that was validated and narrowed. Its handle travels as uuid."""


def serve_agentkms(*roles: object, kind: str) -> NoReturn:
    """Runs the plugin until the host ends it. kind is the one of plugin.json."""
    try:
        server = Server(*roles, kind=kind)
    except ValueError as problem:
        sys.exit(str(problem))
    _process.run(server.services(), cookie=COOKIE, start=lambda: None)


class Server:
    """Answers the calls of agentkms.plugin.v1. The test kit calls it without a process."""

    def __init__(self, *roles: object, kind: str) -> None:
        self.kind, self._run = kind, Runner()
        self._methods: dict[str, dict[str, tuple[Callable[..., Any], Any]]] = {}
        for role in roles:
            if isinstance(role, ScopeValidator):
                self._add("ScopeValidator", Validate=(role.validate, pb.ValidateRequest), Narrow=(role.narrow, pb.NarrowRequest))
            if isinstance(role, ScopeAnalyzer):
                self._add("ScopeAnalyzer", Analyze=(role.analyze, pb.AnalyzeRequest))
            if isinstance(role, ScopeSerializer):
                self._add("ScopeSerializer", Serialize=(role.serialize, pb.SerializeRequest))
            if isinstance(role, CredentialVender):
                self._add("CredentialVender", Vend=(role.vend, pb.VendRequest))
        if not self._methods:
            raise ValueError(f"a plugin has at least one role; there are: {_process.names(roles)}")

    def _add(self, role: str, **methods: tuple[Callable[..., Any], Any]) -> None:
        if role in self._methods:
            raise ValueError(f"a plugin has each role once, and {role} is there twice")
        self._methods[role] = methods

    def services(self) -> dict[str, dict[str, Any]]:
        """The gRPC services of these roles."""
        out = {}
        for role, methods in self._methods.items():
            handlers = {"Kind": _process.unary(self._kind, pb.KindRequest)}
            for name, (function, request) in methods.items():
                handlers[name] = _process.unary(self._method(name, function), request)
            out[f"agentkms.plugin.v1.{role}Service"] = handlers
        return out

    async def _kind(self, _request: pb.KindRequest) -> pb.KindResponse:
        return pb.KindResponse(kind=self.kind)

    def _method(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        make, refused = _ANSWERS[name]

        async def method(request: Any) -> Any:
            arguments = [_scope(request.requested if name == "Narrow" else request.scope)]
            if name == "Narrow":
                b = request.bounds
                arguments.append(Bounds(b.kind, _params(b.max_params), b.max_ttl_seconds))  # type: ignore[arg-type]
            try:
                return make(await self._run(function, *arguments))
            except Refused as reason:
                if refused is None:
                    raise
                return refused(error=str(reason) or "it is refused")

        return method


def _params(struct: Any) -> dict[str, Any]:
    out: dict[str, Any] = json_format.MessageToDict(struct)
    return out


def _scope(s: pb.Scope) -> Scope:
    return Scope(s.kind, _params(s.params), s.ttl_seconds)


def _validated(_nothing: None) -> pb.ValidateResponse:
    return pb.ValidateResponse()


def _narrowed(scope: Scope) -> pb.NarrowResponse:
    answer = pb.NarrowResponse(narrowed_scope=pb.Scope(kind=scope.kind, ttl_seconds=scope.ttl))
    answer.narrowed_scope.params.update(_plain(scope.params))
    return answer


def _plain(params: Mapping[str, Any]) -> dict[str, Any]:
    return {n: list(v) if isinstance(v, (tuple, set, frozenset)) else v for n, v in params.items()}


def _analyzed(found: Iterable[Anomaly]) -> pb.AnalyzeResponse:
    levels = pb.AnomalyLevel
    return pb.AnalyzeResponse(
        anomalies=[pb.ScopeAnomaly(level=levels.Name(a.level), code=a.code, message=a.message) for a in found]
    )


def _serialized(data: bytes) -> pb.SerializeResponse:
    return pb.SerializeResponse(provider_bytes=data)


def _vended(issued: Issued) -> pb.VendResponse:
    answer = pb.VendResponse(credential=pb.VendedCredential(api_key=issued.value, uuid=issued.handle))
    if issued.expires_at:
        answer.credential.expires_at.FromSeconds(issued.expires_at)
    return answer


_ANSWERS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "Validate": (_validated, pb.ValidateResponse),
    "Narrow": (_narrowed, pb.NarrowResponse),
    "Analyze": (_analyzed, None),  # its contract has no refusal
    "Serialize": (_serialized, pb.SerializeResponse),
    "Vend": (_vended, pb.VendResponse),
}
