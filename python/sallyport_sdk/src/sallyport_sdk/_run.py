"""Runs the author's functions: what may block in threads, what fails in the log."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import logging
import traceback
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from .errors import Refused
from .pb import sallyport_pb2 as pb

T = TypeVar("T")

THREADS = 64  # so many functions that block may run at a time; further ones wait
FAILED = "the plugin failed; its log says why"
_SHORTEST = 8  # configured texts from this length on are kept out of the log

log = logging.getLogger("sallyport_sdk")


class Runner:
    """Calls functions that are `def`, which may block, in threads, and `async def` in the loop."""

    def __init__(self, threads: int = THREADS) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="plugin")

    async def __call__(self, function: Callable[..., Awaitable[T] | T], *args: Any) -> T:
        """The result of a function, whichever it is."""
        if inspect.iscoroutinefunction(function):
            coroutine: Awaitable[T] = function(*args)
            return await coroutine
        call = functools.partial(contextvars.copy_context().run, function, *args)
        result = await asyncio.get_running_loop().run_in_executor(self._pool, call)
        return await result if inspect.isawaitable(result) else result


def refusal(problem: BaseException, what: str) -> pb.Refusal:
    """What the caller may know of a problem. A failure is logged, and travels without its text."""
    if isinstance(problem, Refused):
        return pb.Refusal(code=pb.Code.Name(problem.code), reason=str(problem))
    failed(problem, what)
    return pb.Refusal(code=pb.CODE_UNAVAILABLE, reason=FAILED)


def failed(problem: BaseException, what: str) -> None:
    """Logs a failure in one line, which the host shows with the plugin's name."""
    frames = traceback.extract_tb(problem.__traceback__)[-4:]
    where = " < ".join(f"{f.filename.rpartition('/')[2]}:{f.lineno} {f.name}" for f in reversed(frames))
    text = " ".join(str(problem).split())[:500]
    log.error("%s failed: %s: %s (%s)", what, type(problem).__name__, text, where)


class Mask(logging.Filter):
    """Keeps configured texts out of the log: some of them are secrets."""

    def __init__(self) -> None:
        super().__init__()
        self._secrets: list[str] = []

    def learn(self, config: Any) -> None:
        """Takes every text of a configuration."""
        self._secrets = sorted((t for t in _texts(config) if len(t) >= _SHORTEST), key=len, reverse=True)

    def filter(self, record: logging.LogRecord) -> bool:
        """Masks a line; never drops it."""
        text = record.getMessage()
        for secret in self._secrets:
            text = text.replace(secret, "***")
        record.msg, record.args = text, None
        return True


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for v in value.values():
            yield from _texts(v)
    elif isinstance(value, list):
        for v in value:
            yield from _texts(v)


mask = Mask()
