"""What credentials are made of: scopes, bounds, requests."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .errors import Denied, Invalid
from .pb import sallyport_pb2 as pb

HOST_PREFIX = "host."  # of parameters that come from the host alone


class Level(enum.IntEnum):
    """The grade of an anomaly."""

    INFO = 1
    WARN = 2
    ALERT = 3


@dataclass(frozen=True)
class Anomaly:
    """Something unusual about a scope. It is recorded and blocks nothing."""

    level: Level
    code: str
    message: str = ""


@dataclass(frozen=True)
class Scope:
    """What a credential may do.

    params holds JSON values; a number is a float, and a 64-bit integer travels as a
    decimal string. ttl is in seconds.
    """

    kind: str
    params: Mapping[str, Any] = field(default_factory=dict)
    ttl: int = 0


@dataclass(frozen=True)
class Bounds:
    """The widest scope that policy allows. What max_params does not name is free."""

    kind: str = ""
    max_params: Mapping[str, Any] = field(default_factory=dict)
    max_ttl: int = 0


@dataclass(frozen=True)
class Issued:
    """A credential. scope is what was granted: the request's, or a narrower one."""

    scope: Scope
    value: bytes
    expires_at: int = 0  # seconds since 1970; 0 if not known
    handle: str = ""  # what a revocation needs; not secret
    anomalies: Iterable[Anomaly] = ()


@dataclass(frozen=True)
class Request:
    """Asks for a credential: narrow scope to bounds, or refuse.

    host has what the host itself added, without the prefix "host.".
    """

    scope: Scope
    bounds: Bounds = field(default_factory=Bounds)
    host: Mapping[str, str] = field(default_factory=dict)

    @property
    def params(self) -> Mapping[str, Any]:
        """The parameters that were asked for."""
        return self.scope.params

    def narrowed(self) -> Scope:
        """The scope within the bounds, for parameters that are one value or a set of them.

        A list is a set: what is in both is granted. Anything else must be equal to the
        bound, or be one of a list of bounds. What the request leaves open, policy fills in.
        Raises Denied if nothing is left. Kinds whose values have an order narrow by themselves.
        """
        params = dict(self.scope.params)
        for name, limit in self.bounds.max_params.items():
            params[name] = _within(name, params.get(name, limit), limit)
        return replace(self.scope, params=params, ttl=min(self.scope.ttl, self.bounds.max_ttl))

    def grant(self, value: bytes | str, *, scope: Scope | None = None, expires_at: int = 0, handle: str = "") -> Issued:
        """A credential for the narrowed scope."""
        data = value.encode() if isinstance(value, str) else value
        return Issued(scope or self.narrowed(), data, expires_at, handle)


def _within(name: str, asked: Any, limit: Any) -> Any:
    if isinstance(asked, list):
        left = [v for v in asked if v in limit] if isinstance(limit, list) else [v for v in asked if v == limit]
        if not left:
            raise Denied(f"policy allows nothing of what {name} asks for")
        return left
    if asked != limit and not (isinstance(limit, list) and asked in limit):
        raise Denied(f"policy does not allow this {name}")
    return asked


def decode_object(data: bytes) -> dict[str, Any]:
    """Reads a JSON object; empty is {}. Raises Invalid."""
    if not data:
        return {}
    try:
        value = json.loads(data, object_pairs_hook=_once, parse_constant=_constant, parse_int=float)
    except (ValueError, RecursionError):
        raise Invalid("the parameters are no JSON object") from None
    if not isinstance(value, dict):
        raise Invalid("the parameters are no JSON object")
    return value


def encode_object(value: Mapping[str, Any]) -> bytes:
    """Writes a JSON object; {} is empty."""
    return json.dumps(dict(value), allow_nan=False).encode() if value else b""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a name is there twice")
    return out


def _constant(name: str) -> float:
    raise ValueError(name)


def read_scope(message: pb.Scope) -> tuple[Scope, dict[str, str]]:
    """Parts the caller's parameters from the host's."""
    params, host = {}, {}
    for name, value in decode_object(message.params).items():
        if not name.startswith(HOST_PREFIX):
            params[name] = value
        elif isinstance(value, str):
            host[name.removeprefix(HOST_PREFIX)] = value
        else:
            raise Invalid(f"the host's parameter {name} must be a string")
    return Scope(message.kind, params, message.ttl_seconds), host


def read_bounds(message: pb.Bounds) -> Bounds:
    """Bounds from the wire."""
    return Bounds(message.kind, decode_object(message.max_params), message.max_ttl_seconds)


def write_issued(issued: Issued) -> pb.IssueResponse:
    """A credential for the wire."""
    scope = issued.scope
    return pb.IssueResponse(
        scope=pb.Scope(kind=scope.kind, params=encode_object(scope.params), ttl_seconds=scope.ttl),
        value=issued.value,
        expires_at_unix=issued.expires_at,
        handle=issued.handle,
        anomalies=[pb.Anomaly(level=pb.Level.Name(a.level), code=a.code, message=a.message) for a in issued.anomalies],
    )
