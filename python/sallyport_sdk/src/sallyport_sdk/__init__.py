"""Write plugins for Sallyport in Python.

    from sallyport_sdk import Invalid, Issued, Request, Vender, serve

    class Greeter(Vender):
        kinds = ["greeting"]

        def issue(self, request: Request) -> Issued:
            if not request.params.get("name"):
                raise Invalid("name must say whom to greet")
            return request.grant(f"hello, {request.params['name']}")

    serve(Greeter(), name="hello", version="1.0.0")

docs/plugins/python.md is the ten-minute start. Nothing here needs click or FastAPI.
"""

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
