"""The roles of a plugin: derive from one or from several, and give the object to serve.

Every function may be `def`, which runs in a thread and may block, or `async def`,
which must not. They are called concurrently. To refuse, raise a Refused; any other
exception is one failed call. What they print appears in the host's log.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .host import Host
from .scopes import Issued, Request, Scope


class Role(ABC):
    """What all roles have."""

    kinds: Sequence[str] = ()  # credential kinds, as in the manifest
    host: Host  # services of the host, for what capabilities.services of the manifest asks for

    def configure(self, config: Mapping[str, Any]) -> Awaitable[None] | None:
        """Takes the configuration, once and before any other call. It may contain secrets."""
        return None


class Vender(Role):
    """Issues credentials (role credential-vender)."""

    @abstractmethod
    def issue(self, request: Request) -> Issued | Awaitable[Issued]:
        """Validates, narrows and makes a credential."""

    def vet(self, scope: Scope) -> Awaitable[None] | None:
        """Checks a scope before policy sees it. Not called for kinds whose parameters the manifest describes."""
        return None


@dataclass(frozen=True)
class Revocation:
    """One credential to take back, by what the manifest's revocation.needs says."""

    kind: str
    handle: str = ""
    value: bytes = field(default=b"", repr=False)
    reason: str = ""
    id: str = ""  # the same in every repetition


class Revoker(Role):
    """Takes credentials back (role revoker)."""

    @abstractmethod
    def revoke(self, revocation: Revocation) -> Awaitable[None] | None:
        """Takes one back. Repeated until it returns; what is gone already is revoked.

        Raise Unimplemented where a person must do it by hand.
        """

    def supports(self, kind: str) -> bool | Awaitable[bool]:
        """Whether credentials of a kind can be taken back at all."""
        return True


class Urgency(enum.IntEnum):
    """How soon a person should look."""

    LOW = 1
    ELEVATED = 2
    HIGH = 3


@dataclass(frozen=True)
class Notification:
    """One message to people. Texts are data, not markup; none is secret."""

    id: str
    kind: str
    urgency: Urgency = Urgency.LOW
    title: str = ""
    text: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    at: float = 0  # seconds since 1970


class Notifier(Role):
    """Tells people (role notifier)."""

    @abstractmethod
    def notify(self, notification: Notification) -> Awaitable[None] | None:
        """Delivers one. Repeated after a failure; Invalid and Denied give it up."""


class Device(enum.IntEnum):
    """Which part of a platform evidence is about."""

    CPU = 1
    GPU = 2
    SWITCH = 3


class Result(enum.IntEnum):
    """How a check came out."""

    PASS = 1
    FAIL = 2
    SKIP = 3


@dataclass(frozen=True)
class Check:
    """One thing that a verifier looked at. None of it is secret."""

    name: str  # stable, for machines: report-signature
    result: Result
    expected: str = ""
    seen: str = ""
    reason: str = ""  # of a failure or a skip: what to do
    section: str = ""  # of a specification


@dataclass(frozen=True)
class Evidence:
    """One piece of evidence, and what it must be bound to."""

    name: str
    data: bytes
    report_data: bytes = b""
    init_data: bytes = b""  # empty: the workload sent none
    unbound: bool = False  # looked at offline: leave the two checks out
    at: float = 0  # the time for which to judge, in seconds since 1970


@dataclass(frozen=True)
class Judgement:
    """What genuine and bound evidence says. The host refuses one without checks, or with one that failed."""

    device: Device
    claims: Mapping[str, Any]
    report_data: bytes  # as the evidence shows it
    checks: Sequence[Check]
    init_data: bytes = b""  # only if the evidence proves it


class Verifier(Role):
    """Judges evidence of TEEs that the host does not know itself (role verifier)."""

    @abstractmethod
    def judge(self, evidence: Evidence) -> Judgement | Awaitable[Judgement]:
        """Checks that evidence is genuine and bound. Policy decides, with the claims.

        Raise Invalid if it is malformed, Denied if it is not genuine or not bound, and
        Unavailable if reference material is missing.
        """


@dataclass(frozen=True)
class Event:
    """Something that has happened. It comes at least once, and for one subject in order."""

    id: str  # the same in every repetition
    type: str  # grant.issued, subject.revoked, ...
    subject: str = ""  # id of the subject that it concerns
    position: int = 0  # in the ledger
    at: float = 0  # seconds since 1970
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Principal:
    """Who calls a route, after the host has authenticated it."""

    id: str = ""
    kind: str = ""  # agent, operator, workload, machine
    name: str = ""
    role: str = ""


class Extension(Role):
    """Adds routes, hooks and gates (role extension).

    app is an ASGI application, for example FastAPI's. It sees the path below the
    extension's prefix, the principal as scope["state"]["principal"], and what HTTP has, but for
    the credentials of the caller, which the host keeps.
    """

    app: Any = None

    def start(self) -> Awaitable[None] | None:
        """Called once per process, after the migrations. Repeating it in a new process must do no harm."""
        return None

    def stop(self) -> Awaitable[None] | None:
        """Called before the process ends in good order."""
        return None

    def hook(self, event: Event) -> Awaitable[None] | None:
        """Hears of an event that the manifest names. Repeated if it fails."""
        return None

    def gate(self, gate: str, question: Mapping[str, Any]) -> Awaitable[None] | None:
        """Is asked before something is decided: returns to allow, raises Denied not to."""
        raise NotImplementedError
