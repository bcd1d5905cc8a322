"""How a plugin says no."""

from __future__ import annotations

from .pb import sallyport_pb2 as pb


class Refused(Exception):
    """A refusal. Its text reaches the caller: say what to change, and no secret.

    Any other exception is a failure: it is logged, and the caller learns only that
    the plugin failed. Raise one of the subclasses.
    """

    code: int = pb.CODE_UNAVAILABLE


class Invalid(Refused):
    """The request is wrong and should not be repeated."""

    code = pb.CODE_INVALID


class Denied(Refused):
    """The request is well-formed, and not allowed."""

    code = pb.CODE_DENIED


class Unavailable(Refused):
    """A part is missing for now; the request may be repeated."""

    code = pb.CODE_UNAVAILABLE


class Exhausted(Refused):
    """A limit was reached; the request may be repeated later."""

    code = pb.CODE_EXHAUSTED


class Unimplemented(Refused):
    """The plugin does not know this kind of call."""

    code = pb.CODE_UNIMPLEMENTED


class Conflict(Refused):
    """What the call rested on has changed; read it again."""

    code = pb.CODE_CONFLICT


class NotFound(Refused):
    """What the call names does not exist."""

    code = pb.CODE_NOT_FOUND


_BY_CODE: dict[int, type[Refused]] = {
    c.code: c for c in (Invalid, Denied, Unavailable, Exhausted, Unimplemented, Conflict, NotFound)
}


def of_wire(refusal: pb.Refusal) -> Refused:
    """The exception for a refusal of the host."""
    return _BY_CODE.get(refusal.code, Unavailable)(refusal.reason)
