"""get_token: the token of the session that was handed over."""

from __future__ import annotations

import sys

from .handover import NotHandedOver, handover


def get_token() -> str:
    """The session's token; without one it says what to do, and ends with 1.

    It opens nothing by itself: give it to AttestationClient, which proves that the
    session is this process's own.
    """
    try:
        handed = handover()
    except NotHandedOver as problem:
        print(problem, file=sys.stderr)
        sys.exit(1)
    if handed.session is None:
        print(handed.no_session or "the plugin's manifest asks for no scopes, so it has no session", file=sys.stderr)
        sys.exit(1)
    return handed.session.token
