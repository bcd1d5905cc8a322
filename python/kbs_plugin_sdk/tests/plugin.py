"""A plugin in a process of its own, for the tests of the server."""

from __future__ import annotations

import asyncio
import sys

from kbs_plugin_sdk import PluginHandler, PluginRequest, PluginResponse, PluginServer, TlsConfig


class Echo(PluginHandler):
    async def handle(self, request: PluginRequest) -> PluginResponse:
        if request.path and request.path[0] == "fail":
            raise ValueError("canary")
        if request.path and request.path[0] == "slow":
            print("handling", file=sys.stderr, flush=True)
            await asyncio.sleep(1)
        return PluginResponse(body=request.body, content_type="text/plain")


def main() -> None:
    server = PluginServer(Echo()).with_address("127.0.0.1:0")
    if len(sys.argv) > 3:
        server.with_tls(TlsConfig.server_tls(*sys.argv[1:4]))
    elif len(sys.argv) > 2:
        server.with_tls(TlsConfig.server_tls(*sys.argv[1:3]))
    elif len(sys.argv) > 1:
        server.without_health()
    asyncio.run(server.serve())


if __name__ == "__main__":
    main()
