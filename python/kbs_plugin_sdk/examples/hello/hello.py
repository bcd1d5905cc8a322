"""Greets guests: GET /kbs/v0/external/hello/NAME. Changes are for administrators."""

import asyncio

from kbs_plugin_sdk import PluginHandler, PluginRequest, PluginResponse, PluginServer
from kbs_plugin_sdk.plugin.plugin_pb2 import ValidateAuthRequest


class Hello(PluginHandler):
    async def handle(self, request: PluginRequest) -> PluginResponse:
        if len(request.path) != 1:
            return PluginResponse(status_code=404)
        return PluginResponse(body=b"hello, " + request.path[0].encode())

    async def validate_auth(self, request: ValidateAuthRequest) -> bool:
        return request.method != "GET"


asyncio.run(PluginServer(Hello()).serve())
