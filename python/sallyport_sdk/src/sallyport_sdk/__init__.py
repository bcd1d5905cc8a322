"""Write plugins for Sallyport in Python.

    from sallyport_sdk import Invalid, Issued, Request, Vender, serve

    class Greeter(Vender):
        kinds = ["greeting"]

        def issue(self, request: Request) -> Issued:
            if not request.params.get("name"):
                raise Invalid("name must say whom to greet")
            return request.grant(f"hello, {request.params['name']}")

    serve(Greeter(), name="hello", version="1.0.0")

docs/plugins/python.md is the ten-minute start. Names are imported when they are used: a CLI
plugin needs no gRPC, and nothing here needs click or FastAPI.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import Conflict, Denied, Exhausted, Invalid, NotFound, Refused, Unavailable, Unimplemented
    from .extensions import AttestationExtension, CliPlugin
    from .roles import (
        Check,
        Device,
        Event,
        Evidence,
        Extension,
        Judgement,
        Notification,
        Notifier,
        Principal,
        Result,
        Revocation,
        Revoker,
        Urgency,
        Vender,
        Verifier,
    )
    from .scopes import Anomaly, Bounds, Issued, Level, Request, Scope
    from .serving import serve

__all__ = [
    "Anomaly", "AttestationExtension", "Bounds", "Check", "CliPlugin", "Conflict", "Denied", "Device", "Event", "Evidence", "Exhausted", "Extension",
    "Invalid", "Issued", "Judgement", "Level", "NotFound", "Notification", "Notifier", "Principal", "Refused", "Request",
    "Result", "Revocation", "Revoker", "Scope", "Unavailable", "Unimplemented", "Urgency", "Vender", "Verifier", "serve",
]  # fmt: skip

_MODULES = {
    "errors": "Conflict Denied Exhausted Invalid NotFound Refused Unavailable Unimplemented",
    "extensions": "AttestationExtension CliPlugin",
    "roles": "Check Device Event Evidence Extension Judgement Notification Notifier Principal Result Revocation Revoker Urgency Vender Verifier",
    "scopes": "Anomaly Bounds Issued Level Request Scope",
    "serving": "serve",
}
_HOME = {name: module for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value
