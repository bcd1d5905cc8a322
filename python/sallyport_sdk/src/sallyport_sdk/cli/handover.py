"""What the command line hands to a plugin: where the server is, and a session for this invocation."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SCHEMA = "sallyport.handover/v1"
VARIABLE = "SALLYPORT_HANDOVER"
MAX_BYTES = 32 << 10


@dataclass(frozen=True)
class Session:
    """A delegated session. Each request needs a proof by its key; it ends with this process."""

    token: str = field(repr=False)
    key: Mapping[str, str] = field(repr=False)  # a private JWK (RFC 8037)
    scopes: tuple[str, ...] = ()
    expires_at: str = ""


@dataclass(frozen=True)
class Handover:
    """The document. What was not handed over is empty."""

    plugin: str = ""
    version: str = ""
    command: str = ""
    entry_points: Mapping[str, str] = field(default_factory=dict)
    output: str = "table"
    context: str = ""
    url: str = ""
    ca: str = ""
    session: Session | None = None
    no_session: str = ""


class NotHandedOver(Exception):
    """This process was not started by the command line, or the document cannot be read."""


def parse(text: bytes) -> Handover:
    """Reads a document. Members that are not known are ignored."""
    if len(text) > MAX_BYTES:
        raise NotHandedOver(f"the handover is larger than {MAX_BYTES} bytes")
    try:
        found = json.loads(text)
        if not isinstance(found, dict) or found.get("schema") != SCHEMA:
            raise NotHandedOver(f"the handover has another schema than {SCHEMA}")
        session = found.get("session")
        members: dict[str, Any] = {n: found[n] for n in Handover.__dataclass_fields__ if n in found and n != "session"}
        if session is not None:
            members["session"] = Session(
                str(session["token"]), dict(session["key"]), tuple(session.get("scopes", ())), str(session.get("expires_at", ""))
            )
        return Handover(**members)
    except (ValueError, TypeError, KeyError, RecursionError) as problem:
        raise NotHandedOver("the handover cannot be read") from problem


@functools.cache
def handover() -> Handover:
    """The document of this process, read once. Raises NotHandedOver."""
    number = os.environ.get(VARIABLE, "")
    if not number.isascii() or not number.isdigit():
        raise NotHandedOver("this is a plugin of the sallyport command line, and is started by it: sallyport plugin install FILE --for cli")
    try:
        with os.fdopen(_descriptor(int(number)), "rb") as pipe:
            return parse(pipe.read(MAX_BYTES + 1))
    except OSError as problem:
        raise NotHandedOver("the handover of the command line is not open") from problem


def _descriptor(number: int) -> int:
    if sys.platform != "win32":
        return number
    import msvcrt

    return msvcrt.open_osfhandle(number, os.O_RDONLY)
