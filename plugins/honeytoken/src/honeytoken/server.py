"""Serves the scope-validator of agentkms.plugin.v1, from its proto and grpcio alone."""

import os
import signal
import sys
import threading
from concurrent import futures

import grpc
from google.protobuf import json_format

from honeytoken import plugin_pb2 as pb
from honeytoken import scope


def kind(_request, _context):
    return pb.KindResponse(kind=scope.KIND)


def validate(request, _context):
    try:
        scope.validate(request.scope.kind, json_format.MessageToDict(request.scope.params))
    except scope.Refused as reason:
        return pb.ValidateResponse(error=str(reason))
    return pb.ValidateResponse()


def narrow(request, _context):
    asked, bounds = request.requested, request.bounds
    params, limits = json_format.MessageToDict(asked.params), json_format.MessageToDict(bounds.max_params)
    try:
        narrowed, ttl = scope.narrow(params, asked.ttl_seconds, limits, bounds.max_ttl_seconds)
    except scope.Refused as reason:
        return pb.NarrowResponse(error=str(reason))
    answer = pb.NarrowResponse(narrowed_scope=pb.Scope(kind=asked.kind, ttl_seconds=ttl))
    answer.narrowed_scope.params.update(narrowed)
    return answer


METHODS = {"Kind": (kind, pb.KindRequest), "Validate": (validate, pb.ValidateRequest), "Narrow": (narrow, pb.NarrowRequest)}


def quiet(function):
    """A failure is logged without its text, and travels without it."""

    def call(request, context):
        try:
            return function(request, context)
        except Exception as problem:
            print("call failed:", type(problem).__name__, file=sys.stderr)
            context.abort(grpc.StatusCode.INTERNAL, "the plugin failed")

    return call


def main():
    if os.environ.get("PLUGIN_MAGIC_COOKIE") != "agentkms_plugin_v1":
        print("This is a plugin: a host starts it.", file=sys.stderr)
        return 1
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            quiet(function), request_deserializer=request.FromString, response_serializer=lambda m: m.SerializeToString()
        )
        for name, (function, request) in METHODS.items()
    }
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("agentkms.plugin.v1.ScopeValidatorService", handlers),)
    )
    folder = os.environ.get("PLUGIN_UNIX_SOCKET_DIR", "")
    if folder:  # where the host made one, nobody else can call
        address = f"unix|{folder}/plugin.sock"
        server.add_insecure_port(f"unix:{folder}/plugin.sock")
    else:
        address = f"tcp|127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    server.start()
    print(f"1|1|{address}|grpc", flush=True)
    ended.wait()
    server.stop(1).wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
