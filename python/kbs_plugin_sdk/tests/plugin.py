"""A plugin in a process of its own, for the tests of the server."""

from __future__ import annotations

import asyncio
import os
import sys

from kbs_plugin_sdk import PluginHandler, PluginRequest, PluginResponse, PluginServer, TlsConfig, current_context, key_file


class Echo(PluginHandler):
    async def handle(self, request: PluginRequest) -> PluginResponse:
        if request.path and request.path[0] == "fail":
            raise ValueError("canary")
        if request.path and request.path[0] == "slow":
            print("handling", file=sys.stderr, flush=True)
            await asyncio.sleep(1)
        body = current_context().broker.encode() if request.path and request.path[0] == "who" else request.body
        return PluginResponse(body=body, content_type="text/plain")


def main() -> None:
    server = PluginServer(Echo()).with_address("127.0.0.1:0")
    if len(sys.argv) > 3:
        server.with_tls(TlsConfig.server_tls(*sys.argv[1:4]))
    elif len(sys.argv) > 2:
        server.with_tls(TlsConfig.server_tls(*sys.argv[1:3]))
    elif len(sys.argv) > 1:
        server.without_health()
    if keys := os.environ.get("CONTEXT_KEYS"):
        server.with_context("models", key_file(keys))
    asyncio.run(server.serve())


if __name__ == "__main__":
    main()
