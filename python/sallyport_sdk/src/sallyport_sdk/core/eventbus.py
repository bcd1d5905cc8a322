"""The bus: handlers by event. Those of one event run concurrently, each with its own deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from .._run import failed
from .events import NodeEvent, NodeEventPayload

Handler = Callable[[NodeEventPayload], Awaitable[None]]

TIMEOUT = 10.0  # seconds for one handler


class EventBus:
    """Handlers of this process."""

    def __init__(self) -> None:
        self._handlers: list[tuple[frozenset[NodeEvent], Handler]] = []
        self.loop: asyncio.AbstractEventLoop | None = None  # where handlers run that nobody waits for

    def on(self, *events: NodeEvent) -> Callable[[Handler], Handler]:
        """Subscribes a function to events."""

        def subscribe(handler: Handler) -> Handler:
            self._handlers.append((frozenset(events), handler))
            return handler

        return subscribe

    def on_any(self) -> Callable[[Handler], Handler]:
        """Subscribes a function to every event."""
        return self.on(*NodeEvent)

    async def emit(self, payload: NodeEventPayload) -> int:
        """Runs all handlers, and gives how many failed. None of them harms another, or the caller."""
        waiting = [self._run(h, payload) for events, h in self._handlers if payload.event in events]
        return (await asyncio.gather(*waiting)).count(False)

    def emit_nowait(self, payload: NodeEventPayload) -> None:
        """Has all handlers run, and waits for none; from any thread once the extension has started."""
        asyncio.run_coroutine_threadsafe(self.emit(payload), self.loop or asyncio.get_running_loop())

    async def _run(self, handler: Handler, payload: NodeEventPayload) -> bool:
        try:
            await asyncio.wait_for(handler(payload), TIMEOUT)
        except Exception as problem:
            failed(problem, f"{getattr(handler, '__name__', 'handler')} of {payload.event.value}")
            return False
        return True


bus = EventBus()
