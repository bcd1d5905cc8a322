"""An AttestationExtension as the role extension of this host."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import sys
from typing import Any, NoReturn

from .core.eventbus import bus
from .errors import Unavailable
from .extensions import AttestationExtension
from .hooks import payload_of
from .roles import Event, Extension, Role
from .serving import serve


class Platform(Extension):
    """Serves one. Its router keeps its prefix /api/v1/NAME, which the host has taken from the path."""

    def __init__(self, extension: AttestationExtension) -> None:
        self.extension = extension
        self.app = _application(extension.get_router())

    async def start(self) -> None:
        """What the extension begins with."""
        from .core import database

        database.use(self.host, asyncio.get_running_loop())
        await _either(self.extension.on_startup())

    async def stop(self) -> None:
        """What it ends with."""
        await _either(self.extension.on_shutdown())

    async def hook(self, event: Event) -> None:
        """Tells the handlers of the bus. The host repeats the event if one of them fails."""
        payload = payload_of(event.type, event.at, event.data)
        if payload and (failures := await bus.emit(payload)):
            raise Unavailable(f"{failures} handlers failed")


async def _either(result: Any) -> None:
    """Extensions of the platform override with `def` or `async def`."""
    if inspect.isawaitable(result):
        await result


def _application(router: Any) -> Any:
    """An application for a router of FastAPI."""
    if router is None:
        return None
    from fastapi import FastAPI

    app = FastAPI(openapi_url=None)
    app.include_router(router)
    prefix = router.prefix

    async def below(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope = {**scope, "path": prefix + scope["path"], "raw_path": prefix.encode() + scope["raw_path"]}
        await app(scope, receive, send)

    return below


def as_role(found: object) -> Role:
    """An object that serve takes, for a class or object of either kind."""
    if isinstance(found, type):
        found = found()
    if isinstance(found, AttestationExtension):
        return Platform(found)
    if isinstance(found, Role):
        return found
    raise TypeError(f"{type(found).__name__} is neither an AttestationExtension nor a Role")


def main(arguments: list[str]) -> NoReturn:
    """NAME VERSION MODULE:CLASS: serves an extension by its entry point."""
    if len(arguments) != 3:
        sys.exit("usage: python3 -m sallyport_sdk NAME VERSION MODULE:CLASS")
    name, version, reference = arguments
    module, _, attribute = reference.partition(":")
    try:
        role = as_role(getattr(importlib.import_module(module), attribute))
    except Exception as problem:
        sys.exit(f"{reference} does not load: {type(problem).__name__}: {problem}")
    serve(role, name=name, version=version)
