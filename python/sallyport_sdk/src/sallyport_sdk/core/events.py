"""The events of a machine's life."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any


class NodeEvent(str, enum.Enum):
    """What can happen to a machine."""

    NODE_REGISTERED = "node.registered"
    NODE_ONLINE = "node.online"
    NODE_CONFIGURED = "node.configured"
    NODE_IMAGE_CREATED = "node.image_created"
    NODE_PROVISIONED = "node.provisioned"
    NODE_DECOMMISSIONED = "node.decommissioned"
    NODE_HEARTBEAT_MISSED = "node.heartbeat_missed"
    NODE_ROLE_CHANGED = "node.role_changed"
    NODE_CERT_RENEWED = "node.cert_renewed"


def _now() -> datetime:
    return datetime.now(timezone.utc)


@dataclass(frozen=True)
class NodeEventPayload:
    """One event as it came. It never has a bearer secret."""

    event: NodeEvent
    ek_fingerprint: str = ""
    timestamp: datetime = field(default_factory=_now)
    node: Mapping[str, Any] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
