"""The stream of calls: any number at a time, each answered once, in any order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ._run import refusal
from .errors import Unavailable
from .pb import sallyport_pb2 as pb

AT_ONCE = 1024  # calls; further ones wait in the transport
BATCH = 64 << 10  # bytes after which a message of frames is sent
CREDIT = 256 << 10  # bytes of a body that may be sent ahead

Answer = Callable[[pb.HostFrame, "Call"], Awaitable[pb.PluginFrame]]


class Call:
    """One call that is being answered, and for a route the two ways of its body."""

    def __init__(self, stream: Calls, number: int) -> None:
        self._stream = stream
        self.id = number
        self.chunks: asyncio.Queue[pb.BodyChunk] = asyncio.Queue()
        self.begun = False  # the head of the answer is sent
        self._credit = CREDIT
        self._more_credit = asyncio.Event()

    def send(self, frame: pb.PluginFrame) -> None:
        """Sends a frame of this call."""
        frame.id = self.id
        self._stream.send(frame)

    def grant(self, count: int) -> None:
        """Lets the host send so many bytes more of the request's body."""
        if count > 0:
            self.send(pb.PluginFrame(credit=pb.Credit(bytes=count)))

    def credited(self, count: int) -> None:
        """The host lets us send so many bytes more."""
        self._credit += count
        self._more_credit.set()

    async def spend(self, wanted: int) -> int:
        """Waits until something may be sent, and takes at most so much of the credit."""
        while self._credit <= 0 < wanted:
            self._more_credit.clear()
            await self._more_credit.wait()
        took = min(wanted, self._credit)
        self._credit -= took
        return took


class Calls:
    """One stream, until the host closes its side."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._out: asyncio.Queue[pb.PluginFrame | None] = asyncio.Queue()
        self._running: dict[int, tuple[asyncio.Task[None], Call]] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # more than run by number if a host repeats one
        self._slots = asyncio.Semaphore(AT_ONCE)

    def send(self, frame: pb.PluginFrame) -> None:
        """Queues a frame."""
        self._out.put_nowait(frame)

    async def serve(self, context: Any) -> None:
        """Reads until the host closes, then answers what is in flight."""
        writer = asyncio.create_task(self._write(context))
        try:
            while isinstance(message := await context.read(), pb.HostFrames):
                for frame in message.frames:
                    await self._take(frame)
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._out.put_nowait(None)
            await writer
        finally:
            writer.cancel()
            for task in self._tasks:
                task.cancel()

    async def _take(self, frame: pb.HostFrame) -> None:
        body = frame.WhichOneof("body")
        if body in ("cancel", "chunk", "credit"):
            if found := self._running.get(frame.id):  # else it is about a call that has ended
                task, call = found
                if body == "cancel":
                    task.cancel()
                elif body == "chunk":
                    call.chunks.put_nowait(frame.chunk)
                else:
                    call.credited(frame.credit.bytes)
            return
        await self._slots.acquire()
        call = Call(self, frame.id)
        task = asyncio.create_task(self._run(frame, call))
        self._tasks.add(task)
        self._running[frame.id] = (task, call)
        task.add_done_callback(lambda done: self._end(frame.id, done))

    def _end(self, number: int, task: asyncio.Task[None]) -> None:
        self._slots.release()
        self._tasks.discard(task)
        if self._running.get(number, (None, None))[0] is task:
            del self._running[number]

    async def _run(self, frame: pb.HostFrame, call: Call) -> None:
        what = frame.WhichOneof("body") or "call"
        try:
            limit = frame.timeout_ms / 1000 or None
            out = await asyncio.wait_for(self._answer(frame, call), limit)
        except asyncio.CancelledError:
            return  # nobody waits any more, and no answer is owed
        except asyncio.TimeoutError:
            out = pb.PluginFrame(refusal=refusal(Unavailable("the plugin was not done in time"), what))
        except Exception as problem:
            out = pb.PluginFrame(refusal=refusal(problem, what))
        if out.WhichOneof("body"):
            call.send(out)

    async def _write(self, context: Any) -> None:
        """Sends what waits, several frames in a message."""
        last = False
        while not last:
            frame = await self._out.get()
            batch, size = [], 0
            while frame is not None:
                batch.append(frame)
                size += frame.ByteSize()
                if size >= BATCH or self._out.empty():
                    break
                frame = self._out.get_nowait()
            last = frame is None
            if batch:
                await context.write(pb.PluginFrames(frames=batch))

