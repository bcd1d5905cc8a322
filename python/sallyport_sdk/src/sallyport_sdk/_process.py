"""The process of a plugin: what its host expects of it from the first line to the last.

It speaks go-plugin's handshake: a cookie in the environment, a socket in the folder
that the host made for it, one line on standard output.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

import grpc
import grpc.aio

from ._run import failed, mask

MAX_MESSAGE = 4 << 20
GRACE = 2.0  # seconds for calls in flight when the host asks to end

Handler = Any  # grpc.RpcMethodHandler: grpcio has no types


def unary(function: Callable[..., Any], request: Any) -> Handler:
    """A method with one request and one answer; its failures travel without their text."""

    async def call(message: Any, context: Any) -> Any:
        try:
            return await function(message)
        except Exception as problem:
            failed(problem, request.DESCRIPTOR.name)
            await context.abort(grpc.StatusCode.INTERNAL, "the plugin failed")

    return grpc.unary_unary_rpc_method_handler(
        call, request_deserializer=request.FromString, response_serializer=_serialize
    )


def streaming(function: Callable[..., Any], request: Any) -> Handler:
    """A method with a stream in both directions: function reads and writes its context."""

    async def call(_requests: Any, context: Any) -> None:
        await function(context)

    return grpc.stream_stream_rpc_method_handler(
        call, request_deserializer=request.FromString, response_serializer=_serialize
    )


def _serialize(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


def run(services: Mapping[str, Mapping[str, Handler]], *, cookie: tuple[str, str], start: Callable[[], None]) -> NoReturn:
    """Serves until the host ends it. start is called in the loop, before anything else."""
    if os.environ.get(cookie[0]) != cookie[1]:
        sys.exit("This is a plugin: a host starts it. See docs/plugins/python.md.")
    # The handshake has standard output for itself; what else is printed is log.
    out = os.dup(1)
    os.dup2(2, 1)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    handler.addFilter(mask)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    code = 1
    try:
        asyncio.run(_serve(services, out, start))
        code = 0
    except OSError as problem:
        print(f"the plugin cannot serve: {problem}", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(code)  # a function that blocks for ever must not keep the process


async def _serve(services: Mapping[str, Mapping[str, Handler]], out: int, start: Callable[[], None]) -> None:
    start()
    ended = asyncio.Event()
    limits = [("grpc.max_receive_message_length", MAX_MESSAGE), ("grpc.max_send_message_length", MAX_MESSAGE)]
    server = grpc.aio.server(options=[*limits, ("grpc.so_reuseport", 0)])
    every = {**services, **_plumbing(ended)}
    server.add_generic_rpc_handlers(tuple(grpc.method_handlers_generic_handler(n, m) for n, m in every.items()))
    line = _listen(server)
    _signals(ended)
    await server.start()
    os.write(out, (line + "\n").encode())
    await ended.wait()
    await server.stop(GRACE)


def _signals(ended: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, ended.set)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(ended.set))


def _listen(server: Any) -> str:
    """Binds, and gives the line of the handshake."""
    folder, client = os.environ.get("PLUGIN_UNIX_SOCKET_DIR", ""), os.environ.get("PLUGIN_CLIENT_CERT", "")
    if folder and sys.platform == "linux":
        client = ""  # the kernel tells the host who serves a socket in its folder; plugins of AgentKMS are asked all the same
    credentials, certificate = _mutual_tls(client)
    address = f"unix:{folder}/plugin.sock" if folder else "127.0.0.1:0"
    if credentials is None:
        port = server.add_insecure_port(address)
    else:
        port = server.add_secure_port(address, credentials)
    where = f"unix|{folder}/plugin.sock" if folder else f"tcp|127.0.0.1:{port}"
    return f"1|1|{where}|grpc" + (f"|{certificate}" if certificate else "")


def _mutual_tls(client: str) -> tuple[Any, str]:
    """Credentials for a host that asks for mutual TLS, and our certificate as it wants to read it."""
    if not client:
        return None, ""
    try:
        from ._tls import own_certificate
    except ImportError:
        sys.exit("This host asks for mutual TLS: pack sallyport-sdk[tls] into the plugin, which has cryptography.")
    key, certificate, der = own_certificate()
    credentials = grpc.ssl_server_credentials(
        [(key, certificate)], root_certificates=client.encode(), require_client_auth=True
    )
    return credentials, base64.b64encode(der).rstrip(b"=").decode()


def _plumbing(ended: asyncio.Event) -> dict[str, dict[str, Handler]]:
    """The health check and go-plugin's gentle end. Both messages are smaller than their stubs."""

    async def serving(_request: bytes, _context: Any) -> bytes:
        return b"\x08\x01"  # HealthCheckResponse{status: SERVING}

    async def shutdown(_request: bytes, _context: Any) -> bytes:
        ended.set()
        return b""

    raw = grpc.unary_unary_rpc_method_handler
    return {
        "grpc.health.v1.Health": {"Check": raw(serving)},
        "plugin.GRPCController": {"Shutdown": raw(shutdown)},
    }


def names(objects: Iterable[object]) -> str:
    """For messages: of what classes objects are."""
    return ", ".join(type(o).__name__ for o in objects)
