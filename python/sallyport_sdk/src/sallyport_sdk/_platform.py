"""An AttestationExtension as the role extension of this host."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import sys
import threading
from collections.abc import Coroutine
from typing import Any, NoReturn, TypeVar

from .core.eventbus import bus
from .errors import Unavailable
from .extensions import AttestationExtension
from .hooks import payload_of
from .roles import Event, Extension, Role
from .serving import serve

T = TypeVar("T")


class Platform(Extension):
    """Serves one. Its router keeps its prefix /api/v1/NAME, which the host has taken from the path.

    What the extension has runs in a loop of its own: extensions of the platform use a
    session, which blocks, in `async def` functions too, and then hold up each other
    but not the calls to the host that they wait for.
    """

    def __init__(self, extension: AttestationExtension) -> None:
        self.extension = extension
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="extension", daemon=True).start()
        router = extension.get_router()
        self.app = None if router is None else self._below(_application(router), router.prefix)

    async def start(self) -> None:
        """What the extension begins with."""
        from .core import database

        database.use(self.host)
        bus.loop = self._loop
        await over(self._loop, _either(self.extension.on_startup))

    async def stop(self) -> None:
        """What it ends with."""
        await over(self._loop, _either(self.extension.on_shutdown))

    async def hook(self, event: Event) -> None:
        """Tells the handlers of the bus. The host repeats the event if one of them fails."""
        payload = payload_of(event.type, event.at, event.data)
        if payload and (failures := await over(self._loop, bus.emit(payload))):
            raise Unavailable(f"{failures} handlers failed")

    def _below(self, app: Any, prefix: str) -> Any:
        """The application, with its prefix back on the path."""

        async def below(scope: Any, receive: Any, send: Any) -> None:
            host = asyncio.get_running_loop()
            await over(
                self._loop,
                app(
                    {**scope, "path": prefix + scope["path"], "raw_path": prefix.encode() + scope["raw_path"]},
                    lambda: over(host, receive()),
                    lambda message: over(host, send(message)),
                ),
            )

        return below


async def over(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
    """Awaits what runs in another loop. Both are cancelled together."""
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))


async def _either(function: Any) -> None:
    """Extensions of the platform override with `def` or `async def`."""
    result = function()
    if inspect.isawaitable(result):
        await result


def _application(router: Any) -> Any:
    """An application for a router of FastAPI."""
    from fastapi import FastAPI

    app = FastAPI(openapi_url=None)
    app.include_router(router)
    return app


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
