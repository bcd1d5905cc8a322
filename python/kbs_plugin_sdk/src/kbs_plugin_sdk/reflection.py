"""Server reflection, v1 and v1alpha, where the package grpcio-reflection is there."""

from __future__ import annotations

from typing import Any

import grpc

from .service import SERVICE, log


def enable(server: Any, health: bool) -> None:
    """Adds both versions, whose messages are the same, or says loudly that it cannot."""
    try:
        from grpc_reflection.v1alpha import reflection, reflection_pb2
    except ImportError:
        log.warning("reflection is off, because grpcio-reflection is not installed; brokers do not need it")
        return
    names = [SERVICE, reflection.SERVICE_NAME, "grpc.reflection.v1.ServerReflection"]
    if health:
        names.append("grpc.health.v1.Health")
    servicer = reflection.aio.ReflectionServicer(names)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in names[1:3]:
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler}),))
