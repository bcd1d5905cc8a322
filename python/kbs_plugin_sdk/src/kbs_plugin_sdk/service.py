"""The three calls of the contract, for a handler and apart from gRPC."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from typing import Any

from .handler import PluginHandler
from .plugin.plugin_pb2 import (
    NeedsEncryptionRequest,
    NeedsEncryptionResponse,
    PluginRequest,
    PluginResponse,
    ValidateAuthRequest,
    ValidateAuthResponse,
)

SERVICE = "kbs.plugin.v1.KbsPlugin"
MAX_MESSAGE = 4 << 20  # what brokers take

log = logging.getLogger("kbs_plugin_sdk")

# Plain functions at one time; further ones wait.
_THREADS = 64


class Code(Enum):
    """Those of gRPC's codes with which a call can fail."""

    INTERNAL = "INTERNAL"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    UNAUTHENTICATED = "UNAUTHENTICATED"


class Failed(Exception):
    """A call failed; this is all that the broker learns."""

    def __init__(self, code: Code = Code.INTERNAL, text: str = "the plugin failed") -> None:
        super().__init__(text)
        self.code, self.text = code, text


class Service:
    """Answers for a handler. Every failure is a :class:`Failed`, logged before."""

    def __init__(self, handler: PluginHandler) -> None:
        self._handler = handler
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="kbs-plugin")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def handle(self, request: PluginRequest) -> PluginResponse:
        answer = await self._call("handle", request)
        if not isinstance(answer, PluginResponse):
            raise self._wrong("handle", answer, "a PluginResponse")
        if answer.status_code == 0:
            answer.status_code = 200
        if not 100 <= answer.status_code <= 599:
            raise self._wrong("handle", answer.status_code, "a status from 100 to 599")
        if (size := answer.ByteSize()) > MAX_MESSAGE:
            log.warning("an answer of %d bytes is larger than brokers take, and is not sent", size)
            raise Failed(Code.RESOURCE_EXHAUSTED, "the answer is larger than a broker takes")
        return answer

    async def validate_auth(self, request: ValidateAuthRequest) -> ValidateAuthResponse:
        return ValidateAuthResponse(requires_admin_auth=await self._decide("validate_auth", request))

    async def needs_encryption(self, request: NeedsEncryptionRequest) -> NeedsEncryptionResponse:
        return NeedsEncryptionResponse(requires_payload_encryption=await self._decide("needs_encryption", request))

    async def _decide(self, name: str, request: Any) -> bool:
        answer = await self._call(name, request)
        # None, of a forgotten return, must not pass for "no": not sealed.
        if not isinstance(answer, bool):
            raise self._wrong(name, answer, "True or False")
        return answer

    async def _call(self, name: str, request: Any) -> Any:
        method = getattr(self._handler, name)
        try:
            if inspect.iscoroutinefunction(method):
                return await method(request)
            known = contextvars.copy_context()  # who calls
            answer = await asyncio.get_running_loop().run_in_executor(self._threads, known.run, method, request)
            return await answer if inspect.isawaitable(answer) else answer
        except Exception:
            log.exception("%s failed", name)
            raise Failed() from None

    @staticmethod
    def _wrong(name: str, answer: object, want: str) -> Failed:
        log.error("%s returned %s, not %s", name, answer if isinstance(answer, int) else type(answer).__name__, want)
        return Failed()
