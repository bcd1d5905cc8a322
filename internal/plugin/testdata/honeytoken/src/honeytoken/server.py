"""Serves agentkms.plugin.v1 as the reference plugin does: insecure TCP on the
loopback interface, and neither a health nor a controller service."""

import os
import secrets
import sys
import time
from concurrent import futures

import grpc

from honeytoken import plugin_pb2 as pb

KIND = "honeytoken"
NEEDED = ("name", "purpose")


def kind(_request, _context):
    return pb.KindResponse(kind=KIND)


def validate(request, _context):
    if request.scope.kind != KIND:
        return pb.ValidateResponse(error="this plugin validates honeytokens")
    for param in NEEDED:
        value = request.scope.params.fields[param]
        if not value.string_value.strip():
            return pb.ValidateResponse(error=f"params.{param} must be a text that is not blank")
    return pb.ValidateResponse()


def narrow(request, _context):
    return pb.NarrowResponse(narrowed_scope=request.requested)


def vend(request, _context):
    scope = request.scope
    answer = pb.VendResponse()
    answer.credential.api_key = f"honey-{os.getpid()}-{secrets.token_hex(16)}".encode()
    answer.credential.uuid = secrets.token_hex(8)
    answer.credential.expires_at.FromSeconds(int(time.time()) + scope.ttl_seconds)
    return answer


SERVICES = {
    "ScopeValidatorService": {
        "Kind": (kind, pb.KindRequest),
        "Validate": (validate, pb.ValidateRequest),
        "Narrow": (narrow, pb.NarrowRequest),
    },
    "CredentialVenderService": {"Kind": (kind, pb.KindRequest), "Vend": (vend, pb.VendRequest)},
}


def main():
    if os.environ.get("PLUGIN_MAGIC_COOKIE") != "agentkms_plugin_v1":
        print("this is a plugin: a host starts it", file=sys.stderr)
        return 1
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    for service, methods in SERVICES.items():
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                function, request_deserializer=request.FromString, response_serializer=lambda m: m.SerializeToString()
            )
            for name, (function, request) in methods.items()
        }
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(f"agentkms.plugin.v1.{service}", handlers),)
        )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"1|1|tcp|127.0.0.1:{port}|grpc", flush=True)
    server.wait_for_termination()
    return 0


if __name__ == "__main__":
    sys.exit(main())
