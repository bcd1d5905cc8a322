"""Who calls, as the broker has signed it (rich mode of Sallyport; Trustee says nothing).

With :meth:`PluginServer.with_context` a server checks it before it calls ``handle``, and
:func:`current_context` gives it there.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from .keys import Keys, PublicKey, read_keys
from .plugin.plugin_pb2 import PluginRequest

CONTEXT_KEY = "sallyport-context"  # of gRPC's metadata
CONTEXT_TYPE = "sallyport-context+jwt"

_LEEWAY = 30  # seconds, for clocks that differ
_LONGEST_LIFE = 300
_MAX_CONTEXT = 8 << 10
_KEYS_AT_MOST = 10  # seconds between two looks for a key that is not known
_KEYS_AT_LEAST = 300  # until the set is read again
_KEYS_AT_LONGEST = 3600  # that a set counts while it cannot be read again
_READ_WITHIN = 10.0


class ContextError(Exception):
    """A request whose sender is not known; the text says why."""


@dataclass(frozen=True)
class Device:
    """One device of a guest. A member is empty where the token does not have it."""

    name: str  # cpu0, gpu0
    tee: str = ""
    status: str = ""
    policy: str = ""  # the attestation policy that appraised it
    init_data: str = ""  # digest of the init-data, as the evidence has it


@dataclass(frozen=True)
class Guest:
    """An attested guest, which the broker's policy allows to ask the plugin."""

    workload: str  # the broker's number of it
    token: str = ""  # SHA-256 of its attestation token, as the broker's records have it
    key: str = ""  # RFC 7638 thumbprint of the key that answers are sealed to
    own: bool = False  # attested at this broker, and not by a token of another service
    status: str = ""  # affirming, warning, contraindicated or none: the worst of the devices
    devices: tuple[Device, ...] = ()


@dataclass(frozen=True)
class Context:
    """What a broker says of who has sent a request."""

    broker: str  # its trust domain
    caller: str  # guest, administrator or anybody
    administrator: str = ""  # name of the operator; empty for none
    guest: Guest | None = None
    expires: datetime = datetime.max.replace(tzinfo=timezone.utc)


# Set by the server, or by the broker for tests, around one call of handle.
_current: ContextVar[Context] = ContextVar("kbs_plugin_sdk.context")


def current_context() -> Context:
    """Who has sent the request that ``handle`` answers. A LookupError where the server was
    not told to check it."""
    return _current.get()


class ContextVerifier:
    """Checks contexts: signature, audience, times, that one belongs to this very request,
    and that it was not shown before. For one event loop.

    ``audience`` is the first segment of the plugin's paths. ``keys`` gives the broker's key
    set (:func:`key_file`, :func:`key_url`); it needs the extra ``contexts``. None is for a
    channel that is the broker's alone, where a signature would prove nothing more.
    """

    def __init__(self, audience: str, keys: Keys | None, now: Callable[[], float] = time.time) -> None:
        if not audience:
            raise ValueError("a verifier of contexts needs the plugin's name")
        self._audience, self._source, self._now = audience, keys, now
        self._reading: asyncio.Task[Exception | None] | None = None
        self._keys: dict[str, PublicKey] = {}
        self._read = self._good = float("-inf")  # tried to read it; the last time that it went well
        # Two generations of what was shown, so that nothing is forgotten within the life of
        # a context.
        self._seen: set[str] = set()
        self._before: set[str] = set()
        self._turned = float("-inf")

    async def verify(self, contexts: Sequence[str], request: PluginRequest) -> Context:
        """Judges the values of the metadata ``sallyport-context`` of a request, or raises
        :class:`ContextError`."""
        if len(contexts) != 1 or len(contexts[0]) > _MAX_CONTEXT:
            raise ContextError("the broker sent no context")
        raw = contexts[0]
        parts = raw.split(".")
        if len(parts) != 3:
            raise ContextError("the context is no signed token")
        head = _object(parts[0], "the context is no signed token")
        if head.get("alg") != "EdDSA" or head.get("typ") != CONTEXT_TYPE or head.get("crit") is not None:
            raise ContextError("the context is no signed token")
        if self._source is not None:
            await self._signed(self._source, head.get("kid"), raw)
        claims = _object(parts[1], "read the context")
        return self._judge(claims, request)

    async def _signed(self, source: Keys, kid: object, raw: str) -> None:
        signed, _, text = raw.rpartition(".")
        signature = _decode(text)
        if signature is None or len(signature) != 64:
            raise ContextError("the context is no signed token")
        key = await self._key(source, kid if isinstance(kid, str) else "")
        if not key.verifies(signature, signed.encode()):
            raise ContextError("the signature of the context is wrong")

    async def _key(self, source: Keys, kid: str) -> PublicKey:
        """The key of a number. One that is not known may be newer than the set is."""

        def fresh() -> bool:
            age = self._now() - self._read
            return age < _KEYS_AT_MOST or (kid in self._keys and age < _KEYS_AT_LEAST)

        error: Exception | None = None
        if not fresh():
            # One reading for all who wait: a caller who goes away stops nothing.
            if self._reading is None:
                self._reading = asyncio.create_task(self._look(source))
            error = await asyncio.shield(self._reading)
        if kid in self._keys:  # what is known still counts for a while
            return self._keys[kid]
        if error is not None:
            raise ContextError(f"read the broker's keys: {error}")
        raise ContextError("the context is signed by no key of the broker")

    async def _look(self, source: Keys) -> Exception | None:
        try:
            found = read_keys(await asyncio.wait_for(asyncio.to_thread(source), _READ_WITHIN))
        except Exception as e:  # noqa: BLE001 - the source is the author's
            self._read = self._now()
            if self._read - self._good >= _KEYS_AT_LONGEST:
                self._keys = {}  # one of them may be withdrawn long since
            return e
        finally:
            self._reading = None
        self._read = self._good = self._now()
        self._keys = found
        return None

    def _judge(self, claims: Mapping[str, Any], request: PluginRequest) -> Context:
        now, issued, expires = self._now(), claims.get("iat", 0), claims.get("exp", 0)
        if type(issued) is not int or type(expires) is not int:
            raise ContextError("read the context: a time is no number")
        audience, of, number = _text(claims, "aud"), _text(claims, "request"), _text(claims, "jti")
        caller, guest = _text(claims, "caller"), claims.get("guest")
        if audience != self._audience:
            raise ContextError("the context is for another plugin")
        if now >= expires or now < issued - _LEEWAY or expires - issued > _LONGEST_LIFE:
            raise ContextError("the context has expired, or the clocks differ")
        if of != request_digest(request):
            raise ContextError("the context is for another request")
        if not number or not self._first(number, now):
            raise ContextError("the context was shown before")
        if (guest is not None) != (caller == "guest"):
            raise ContextError("the context contradicts itself")
        return Context(
            broker=_text(claims, "iss"),
            caller=caller,
            administrator=_text(claims, "administrator"),
            guest=None if guest is None else _guest(guest),
            expires=datetime.fromtimestamp(expires, timezone.utc),
        )

    def _first(self, number: str, now: float) -> bool:
        if now - self._turned > _LONGEST_LIFE + _LEEWAY:
            self._before, self._seen, self._turned = self._seen, set(), now
        if number in self._seen or number in self._before:
            return False
        self._seen.add(number)
        return True


async def told(verifier: ContextVerifier, metadata: Any, request: PluginRequest) -> None:
    """Checks who calls and tells :func:`current_context` of this task."""
    sent = [v for name, v in metadata or () if name == CONTEXT_KEY and isinstance(v, str)]
    _current.set(await verifier.verify(sent, request))


async def telling(context: Context | None, call: Callable[[], Awaitable[Any]]) -> Any:
    """Calls with a context that nobody signed, for tests."""
    if context is None:
        return await call()
    token = _current.set(context)
    try:
        return await call()
    finally:
        _current.reset(token)


def request_digest(request: PluginRequest) -> str:
    """The member ``request``: what a context belongs to. SHA-256 in base64url of method,
    segments, members of the query sorted by the bytes of their names, and body; each after
    its length as 8 bytes, and their numbers."""
    h = hashlib.sha256()

    def count(n: int) -> None:
        h.update(n.to_bytes(8, "big"))

    def part(b: bytes) -> None:
        count(len(b))
        h.update(b)

    part(request.method.encode())
    count(len(request.path))
    for segment in request.path:
        part(segment.encode())
    count(len(request.query))
    for name, value in sorted((n.encode(), v.encode()) for n, v in request.query.items()):
        part(name)
        part(value)
    part(request.body)
    return base64.urlsafe_b64encode(h.digest()).rstrip(b"=").decode()


def _guest(v: object) -> Guest:
    if not isinstance(v, dict):
        raise ContextError("read the context: the guest is no object")
    devices = v.get("devices") or []
    if not isinstance(devices, list) or not all(isinstance(d, dict) for d in devices) or type(v.get("own", False)) is not bool:
        raise ContextError("read the context: the guest has members of the wrong kind")
    return Guest(
        workload=_text(v, "workload"),
        token=_text(v, "token"),
        key=_text(v, "key"),
        own=v.get("own", False),
        status=_text(v, "status"),
        devices=tuple(
            Device(_text(d, "name"), _text(d, "tee"), _text(d, "status"), _text(d, "policy"), _text(d, "init_data")) for d in devices
        ),
    )


def _text(members: Mapping[str, Any], name: str) -> str:
    v = members.get(name, "")
    if not isinstance(v, str):
        raise ContextError(f"read the context: {name} is no text")
    return v


_BASE64 = re.compile(r"[A-Za-z0-9_-]*")


def _decode(text: str) -> bytes | None:
    """Base64url without padding, in its one form."""
    if not _BASE64.fullmatch(text) or len(text) % 4 == 1:
        return None
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return raw if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() == text else None


def _object(text: str, otherwise: str) -> dict[str, Any]:
    raw = _decode(text)
    try:
        v = None if raw is None else json.loads(raw)
    except (ValueError, RecursionError):
        v = None
    if not isinstance(v, dict):
        raise ContextError(otherwise)
    return v
