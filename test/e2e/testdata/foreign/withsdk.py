"""A plugin of kbs_plugin_sdk at an address, as Trustee's authors start theirs, with plain functions."""

import asyncio
import sys

from kbs_plugin_sdk import PluginHandler, PluginRequest, PluginResponse, PluginServer
from kbs_plugin_sdk.plugin.plugin_pb2 import NeedsEncryptionRequest, ValidateAuthRequest


class Plugin(PluginHandler):
    def handle(self, request: PluginRequest) -> PluginResponse:
        if request.path[0] == "fail":
            raise RuntimeError("canary")
        return PluginResponse(body=b"hello, " + request.query["name"].encode(), content_type="text/plain")

    def validate_auth(self, request: ValidateAuthRequest) -> bool:
        return request.method == "DELETE"

    def needs_encryption(self, request: NeedsEncryptionRequest) -> bool:
        return "raw" not in request.query


asyncio.run(PluginServer(Plugin()).with_address(sys.argv[1]).serve())
