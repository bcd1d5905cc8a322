"""Plugins of a Key Broker Service, by the contract kbs.plugin.v1.

One program serves Trustee (Confidential Containers) at an address, and Sallyport at
an address or as a signed package that Sallyport starts itself::

    import asyncio
    from kbs_plugin_sdk import PluginHandler, PluginRequest, PluginResponse, PluginServer

    class Hello(PluginHandler):
        async def handle(self, request: PluginRequest) -> PluginResponse:
            return PluginResponse(body=b"hello " + "/".join(request.path).encode())

    asyncio.run(PluginServer(Hello()).serve())
"""

from .context import Context, ContextError, ContextVerifier, Device, Guest, current_context
from .handler import PluginHandler
from .keys import Keys, key_file, key_url
from .plugin.plugin_pb2 import PluginRequest, PluginResponse
from .server import PluginServer
from .tls import TlsConfig

__all__ = [
    "Context",
    "ContextError",
    "ContextVerifier",
    "Device",
    "Guest",
    "Keys",
    "PluginHandler",
    "PluginRequest",
    "PluginResponse",
    "PluginServer",
    "TlsConfig",
    "current_context",
    "key_file",
    "key_url",
]
