"""The server of a plugin."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from typing import Any, NoReturn

import grpc

from . import reflection
from .context import ContextError, ContextVerifier, told
from .handler import PluginHandler
from .health import Health
from .keys import Keys
from .plugin import plugin_pb2
from .plugin.plugin_pb2_grpc import add_KbsPluginServicer_to_server
from .service import MAX_MESSAGE, Code, Failed, Service, log
from .tls import TlsConfig

DEFAULT_ADDRESS = "127.0.0.1:50051"
GRACE = 5.0  # seconds that calls in flight have when the server ends

# A host that starts plugins itself says so by this variable.
_HOST_KEY, _HOST_VALUE = "SALLYPORT_PLUGIN", "kbs.plugin.v1"


class PluginServer:
    """Serves one plugin. Its ``with_`` methods change it and return it."""

    def __init__(self, handler: PluginHandler) -> None:
        self._handler = handler
        self._address = DEFAULT_ADDRESS
        self._tls: TlsConfig | None = None
        self._with_health = True
        self._context: tuple[str, Keys | None] | None = None
        self.port = 0  # the port that it listens at, once it does

    def with_address(self, address: str) -> PluginServer:
        """Listen at host:port; 127.0.0.1:50051 otherwise."""
        self._address = address
        return self

    def with_tls(self, tls_config: TlsConfig) -> PluginServer:
        """Serve TLS."""
        self._tls = tls_config
        return self

    def without_health(self) -> PluginServer:
        """Leave the health service out."""
        self._with_health = False
        return self

    def with_context(self, name: str, keys: Keys | None = None) -> PluginServer:
        """Call ``handle`` only for requests of which the broker has signed who sends them
        (rich mode of Sallyport); :func:`current_context` gives it. ``name`` is the first
        segment of the plugin's paths. ``keys`` are needed but by a package that Sallyport
        starts itself; they need the extra ``contexts``. Trustee is refused from then on."""
        self._context = (name, keys)
        return self

    async def serve(self) -> None:
        """Serve until SIGTERM or SIGINT, and then for at most five seconds more.

        In a process that Sallyport has started it serves that host alone, over their
        private channel: address, TLS and health do not count then.
        """
        if not logging.getLogger().handlers and not log.handlers:
            logging.basicConfig(level=logging.INFO)
        hosted = os.environ.get(_HOST_KEY) == _HOST_VALUE
        service = Service(self._handler)
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE),
                ("grpc.max_send_message_length", MAX_MESSAGE + 1024),
                ("grpc.so_reuseport", 0),  # an address that is taken is an error
            ]
        )
        add_KbsPluginServicer_to_server(_Servicer(service, self._verifier(hosted)), server)
        health = Health()
        if self._with_health or hosted:
            health.add_to(server)
        if hosted:
            await self._serve_host(server)
        else:
            reflection.enable(server, self._with_health)
            self._listen(server)
            await server.start()
            log.info("the plugin serves at %s (port %d)", self._address, self.port)
        try:
            await _signalled()
        finally:
            health.stop()
            await server.stop(GRACE)
            service.close()

    def _verifier(self, hosted: bool) -> ContextVerifier | None:
        if self._context is None:
            return None
        name, keys = self._context
        if keys is None and not hosted:
            sys.exit("contexts are signed: name the broker's keys, with_context(name, key_url(...))")
        return ContextVerifier(name, None if hosted else keys)

    def _listen(self, server: Any) -> None:
        if self._tls is None:
            log.warning("the plugin serves without TLS: use it on this machine only, for development")
            self.port = server.add_insecure_port(self._address)
        else:
            self.port = server.add_secure_port(self._address, self._tls.credentials())
        if self.port == 0:
            raise OSError(f"cannot listen at {self._address}")

    async def _serve_host(self, server: Any) -> None:
        """Meet the host: a socket in the folder that it names, and one line that says so."""
        folder = os.environ.get("PLUGIN_UNIX_SOCKET_DIR")
        if not folder or os.environ.get("PLUGIN_CLIENT_CERT"):
            sys.exit("this host speaks TLS to plugins, or names no folder for a socket: use a host on Linux")
        empty = grpc.unary_unary_rpc_method_handler(_shutdown)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("plugin.GRPCController", {"Shutdown": empty}),))
        path = os.path.join(folder, "s")  # a folder of this start alone, in which nothing but sockets may be made
        server.add_insecure_port("unix:" + path)
        await server.start()
        print(f"1|1|unix|{path}|grpc", flush=True)


class _Servicer:
    """Service as gRPC wants it."""

    def __init__(self, service: Service, verifier: ContextVerifier | None) -> None:
        self._service, self._verifier = service, verifier

    async def Handle(self, request: plugin_pb2.PluginRequest, context: Any) -> plugin_pb2.PluginResponse:
        try:
            if self._verifier is not None:
                await told(self._verifier, context.invocation_metadata(), request)
            return await self._service.handle(request)
        except ContextError as e:
            log.warning("a request is refused: %s", e)
            await _abort(context, Failed(Code.UNAUTHENTICATED, "the plugin is not told who calls"))
        except Failed as e:
            await _abort(context, e)

    async def ValidateAuth(self, request: plugin_pb2.ValidateAuthRequest, context: Any) -> plugin_pb2.ValidateAuthResponse:
        try:
            return await self._service.validate_auth(request)
        except Failed as e:
            await _abort(context, e)

    async def NeedsEncryption(
        self, request: plugin_pb2.NeedsEncryptionRequest, context: Any
    ) -> plugin_pb2.NeedsEncryptionResponse:
        try:
            return await self._service.needs_encryption(request)
        except Failed as e:
            await _abort(context, e)


async def _abort(context: Any, e: Failed) -> NoReturn:
    await context.abort(grpc.StatusCode[e.code.value], e.text)
    raise AssertionError("abort raises")


async def _shutdown(request: bytes, context: Any) -> bytes:
    """The host's polite way to end a plugin."""
    asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)
    return b""


async def _signalled() -> None:
    """Wait for SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    with contextlib.ExitStack() as undo:
        for s in signals:
            try:
                loop.add_signal_handler(s, stop.set)
                undo.callback(loop.remove_signal_handler, s)
            except NotImplementedError:  # Windows
                old = signal.signal(s, lambda *_: loop.call_soon_threadsafe(stop.set))
                undo.callback(signal.signal, s, old)
            except ValueError:  # not the main thread: whoever runs the loop cancels it
                pass
        await stop.wait()
