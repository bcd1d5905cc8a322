"""A broker for tests: it makes the three calls as Trustee does, in memory::

    answer = Broker(MyPlugin()).request("GET", "models/llama")
    assert answer.status == 200 and answer.sealed and answer.calls == ["ValidateAuth", "Handle", "NeedsEncryption"]
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .context import Context, telling
from .handler import PluginHandler
from .plugin.plugin_pb2 import NeedsEncryptionRequest, PluginRequest, PluginResponse, ValidateAuthRequest
from .service import Failed, Service

MAX_BODY = 2 << 20


@dataclass
class Answer:
    """What a client of the broker gets, and how it came to be."""

    status: int
    body: bytes = b""
    sealed: bool = False  # the client would get it sealed to its key
    error: str = ""  # the variant of a failure
    plugin: PluginResponse | None = None  # what the plugin said
    calls: list[str] = field(default_factory=list)


class Broker:
    """A broker with one plugin. Nothing is authenticated: say who asks."""

    def __init__(self, handler: PluginHandler) -> None:
        self._handler = handler

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        attested: bool = True,
        admin: bool = False,
        context: Context | None = None,
    ) -> Answer:
        """Ask as an attested guest, as an administrator, as both, or as nobody. ``path``
        is what follows the plugin's name; ``context`` is what :func:`current_context` gives.
        Not for use within a running event loop; see
        :meth:`ask`."""
        return asyncio.run(self.ask(method, path, query, body, attested=attested, admin=admin, context=context))

    async def ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        attested: bool = True,
        admin: bool = False,
        context: Context | None = None,
    ) -> Answer:
        """:meth:`request`, to await."""
        if method not in ("GET", "POST", "PUT", "DELETE"):
            return Answer(405)
        if len(body) > MAX_BODY:
            return Answer(413)
        segments = path.split("/") if path else []
        given = {"method": method, "path": segments, "query": dict(query or {}), "body": body}
        service = Service(self._handler)
        answer = Answer(401)
        try:
            await telling(context, lambda: self._ask(service, given, answer, attested, admin))
        except Failed:
            answer.error = "PluginInternalError"
        finally:
            service.close()
        return answer

    @staticmethod
    async def _ask(service: Service, given: Mapping[str, object], answer: Answer, attested: bool, admin: bool) -> None:
        answer.calls.append("ValidateAuth")
        # What the broker sends arrives as bytes: the plugin's request is a copy.
        for_admin = (await service.validate_auth(_sent(ValidateAuthRequest, given))).requires_admin_auth
        if for_admin and not admin:
            answer.error = "AdminAuthInitialization"
            return
        if not for_admin and not attested:
            answer.error = "TokenNotFound"
            return
        answer.calls.append("Handle")
        said = await service.handle(_sent(PluginRequest, given))
        answer.plugin = said
        if not 200 <= said.status_code <= 299:
            answer.error = "PluginInternalError"
            return
        if not for_admin:
            answer.calls.append("NeedsEncryption")
            answer.sealed = (await service.needs_encryption(_sent(NeedsEncryptionRequest, given))).requires_payload_encryption
        answer.status, answer.body = 200, said.body


def _sent(kind: Any, given: Mapping[str, object]) -> Any:
    return kind.FromString(kind(**given).SerializeToString())
