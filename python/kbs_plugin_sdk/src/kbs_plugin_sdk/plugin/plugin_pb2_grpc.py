"""The service, in the form in which gRPC's generator writes it."""

from __future__ import annotations

from typing import Any

import grpc

from . import plugin_pb2

_SERVICE = "kbs.plugin.v1.KbsPlugin"
_METHODS: dict[str, tuple[Any, Any]] = {
    "Handle": (plugin_pb2.PluginRequest, plugin_pb2.PluginResponse),
    "ValidateAuth": (plugin_pb2.ValidateAuthRequest, plugin_pb2.ValidateAuthResponse),
    "NeedsEncryption": (plugin_pb2.NeedsEncryptionRequest, plugin_pb2.NeedsEncryptionResponse),
}


class KbsPluginStub:
    """Calls a plugin, over a channel of grpc or of grpc.aio."""

    Handle: Any
    ValidateAuth: Any
    NeedsEncryption: Any

    def __init__(self, channel: Any) -> None:
        for name, (request, response) in _METHODS.items():
            call = channel.unary_unary(
                f"/{_SERVICE}/{name}", request_serializer=request.SerializeToString, response_deserializer=response.FromString
            )
            setattr(self, name, call)


class KbsPluginServicer:
    """To derive from, without the SDK's server."""

    def Handle(self, request: plugin_pb2.PluginRequest, context: Any) -> Any:
        return _unimplemented(context)

    def ValidateAuth(self, request: plugin_pb2.ValidateAuthRequest, context: Any) -> Any:
        return _unimplemented(context)

    def NeedsEncryption(self, request: plugin_pb2.NeedsEncryptionRequest, context: Any) -> Any:
        return _unimplemented(context)


def _unimplemented(context: Any) -> Any:
    context.set_code(grpc.StatusCode.UNIMPLEMENTED)
    context.set_details("not implemented")
    raise NotImplementedError("not implemented")


def add_KbsPluginServicer_to_server(servicer: Any, server: Any) -> None:
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            getattr(servicer, name), request_deserializer=request.FromString, response_serializer=response.SerializeToString
        )
        for name, (request, response) in _METHODS.items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
