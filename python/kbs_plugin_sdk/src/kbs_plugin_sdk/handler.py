"""What an author writes."""

from __future__ import annotations

import abc
from collections.abc import Awaitable
from typing import TYPE_CHECKING

from .plugin.plugin_pb2 import NeedsEncryptionRequest, PluginRequest, PluginResponse, ValidateAuthRequest


class PluginHandler(abc.ABC):
    """A plugin. Override ``handle``, and the other two where their defaults are wrong.

    A broker asks three independent questions about each request: ``validate_auth``
    before anybody was authenticated, then ``handle``, then ``needs_encryption``. Each
    answers from the request alone. An override may be a plain function; it then runs in
    a thread of its own and keeps nobody waiting.

    An exception is logged; the broker learns only that the plugin failed.
    """

    @abc.abstractmethod
    def handle(self, request: PluginRequest) -> PluginResponse | Awaitable[PluginResponse]:
        """Answer a request whose sender the broker has let pass.

        ``request`` has ``method``, ``path`` (segments after the plugin's name), ``query``
        and ``body``. Status 0 is sent as 200; brokers take 200 to 299 for success.
        """

    if TYPE_CHECKING:  # both forms of an override have the right type

        def validate_auth(self, request: ValidateAuthRequest) -> bool | Awaitable[bool]:
            """See below."""

        def needs_encryption(self, request: NeedsEncryptionRequest) -> bool | Awaitable[bool]:
            """See below."""

    else:

        async def validate_auth(self, request: ValidateAuthRequest) -> bool:
            """Whether a request is for the broker's administrators, whatever its method."""
            return False

        async def needs_encryption(self, request: NeedsEncryptionRequest) -> bool:
            """Whether a guest's answer is sealed to the guest's key. An administrator's never
            is, and the broker does not ask."""
            return True
