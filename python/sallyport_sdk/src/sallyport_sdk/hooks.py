"""Handlers of a machine's events, with typed contexts: @on_online and its siblings.

A handler that raises or takes more than ten seconds is logged and harms nobody; the host
then tells all handlers of that event again, so that they must bear repetition. Events
other than those of machines come to Extension.hook.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from typing import Any, TypeVar

from .core.eventbus import EventBus, bus
from .core.events import NodeEvent, NodeEventPayload


@dataclass
class NodeContext:
    """What every event has."""

    event: NodeEvent
    ek_fingerprint: str
    timestamp: datetime
    raw: NodeEventPayload


@dataclass
class RegisteredContext(NodeContext):
    """A machine has registered itself."""

    ip_address: str
    mac_address: str
    tpm_available: bool
    hardware: dict[str, str]


@dataclass
class OnlineContext(NodeContext):
    """A machine was attested."""

    hostname: str
    role: str
    first_seen_at: datetime | None


@dataclass
class ConfiguredContext(NodeContext):
    """A machine has fetched its configuration. The token is never told."""

    hostname: str
    role: str


@dataclass
class ProvisioningContext(NodeContext):
    """A machine was approved, or its image was made."""

    hostname: str
    role: str
    config_url: str
    schematic_id: str
    iso_url: str


@dataclass
class DecommissionedContext(NodeContext):
    """A machine was revoked."""

    hostname: str
    role: str
    reason: str | None


@dataclass
class HeartbeatMissedContext(NodeContext):
    """A machine is silent."""

    hostname: str
    last_seen_at: datetime | None
    missed_count: int


@dataclass
class RoleChangedContext(NodeContext):
    """A machine has another role."""

    hostname: str
    previous_role: str
    new_role: str


_CONTEXTS: dict[NodeEvent, type[NodeContext]] = {
    NodeEvent.NODE_REGISTERED: RegisteredContext,
    NodeEvent.NODE_ONLINE: OnlineContext,
    NodeEvent.NODE_CONFIGURED: ConfiguredContext,
    NodeEvent.NODE_IMAGE_CREATED: ProvisioningContext,
    NodeEvent.NODE_PROVISIONED: ProvisioningContext,
    NodeEvent.NODE_DECOMMISSIONED: DecommissionedContext,
    NodeEvent.NODE_HEARTBEAT_MISSED: HeartbeatMissedContext,
    NodeEvent.NODE_ROLE_CHANGED: RoleChangedContext,
}
_EMPTY: dict[str, Any] = {
    "tpm_available": False, "hardware": {}, "first_seen_at": None, "last_seen_at": None, "missed_count": 0, "reason": None,
}  # fmt: skip


def context_of(payload: NodeEventPayload) -> NodeContext:
    """The typed context of an event."""
    kind = _CONTEXTS.get(payload.event, NodeContext)
    known: Mapping[str, Any] = {**payload.node, **payload.meta}
    values = {
        f.name: _value(f.name, known)
        for f in fields(kind)
        if f.name not in ("event", "ek_fingerprint", "timestamp", "raw")
    }
    return kind(payload.event, payload.ek_fingerprint, payload.timestamp, payload, **values)


def _value(name: str, known: Mapping[str, Any]) -> Any:
    value = known.get(name, _EMPTY.get(name, ""))
    if name.endswith("_at") and isinstance(value, str) and value:
        return datetime.fromisoformat(value.replace("Z", "+00:00"))
    return value


C = TypeVar("C", bound=Callable[[Any], Awaitable[None]])


def _decorator(*events: NodeEvent, on: EventBus = bus) -> Callable[[C], C]:
    def subscribe(handler: C) -> C:
        async def typed(payload: NodeEventPayload) -> None:
            await handler(context_of(payload))

        typed.__name__ = getattr(handler, "__name__", "handler")
        on.on(*events)(typed)
        return handler

    return subscribe


on_registered = _decorator(NodeEvent.NODE_REGISTERED)
on_configured = _decorator(NodeEvent.NODE_CONFIGURED)
on_provisioning = _decorator(NodeEvent.NODE_PROVISIONED, NodeEvent.NODE_IMAGE_CREATED)
on_online = _decorator(NodeEvent.NODE_ONLINE)
on_decommissioned = _decorator(NodeEvent.NODE_DECOMMISSIONED)
on_heartbeat_missed = _decorator(NodeEvent.NODE_HEARTBEAT_MISSED)
on_role_changed = _decorator(NodeEvent.NODE_ROLE_CHANGED)
on_any_event = _decorator(*NodeEvent)


def payload_of(type: str, at: float, data: Mapping[str, Any]) -> NodeEventPayload | None:
    """An event of the host as the bus knows it; None if it is not about a machine."""
    try:
        event = NodeEvent(type)
    except ValueError:
        return None
    node = data.get("node")
    meta = data.get("meta")
    return NodeEventPayload(
        event,
        str(data.get("ek_fingerprint", "")),
        datetime.fromtimestamp(at, timezone.utc),
        node if isinstance(node, dict) else dict(data),
        meta if isinstance(meta, dict) else {},
    )
