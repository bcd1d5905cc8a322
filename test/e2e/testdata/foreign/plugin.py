"""A plugin as people write them for Trustee: grpcio and the generated messages, synchronous,
without health, reflection or any SDK. Arguments: address, folder of plugin_pb2."""

import sys
from concurrent import futures

import grpc

sys.path.insert(0, sys.argv[2])
import plugin_pb2 as pb  # noqa: E402


class Issuer:
    def Handle(self, request, context):
        if list(request.path) == ["issue"]:
            return pb.PluginResponse(body=b"certificate of " + request.query["identity"].encode(), status_code=200)
        return pb.PluginResponse(body=b"who are you", status_code=403)

    def ValidateAuth(self, request, context):
        return pb.ValidateAuthResponse(requires_admin_auth=request.method == "DELETE")

    def NeedsEncryption(self, request, context):
        return pb.NeedsEncryptionResponse(requires_payload_encryption="raw" not in request.query)


issuer = Issuer()
handlers = {
    name: grpc.unary_unary_rpc_method_handler(getattr(issuer, name), request_deserializer=q.FromString, response_serializer=a.SerializeToString)
    for name, q, a in (
        ("Handle", pb.PluginRequest, pb.PluginResponse),
        ("ValidateAuth", pb.ValidateAuthRequest, pb.ValidateAuthResponse),
        ("NeedsEncryption", pb.NeedsEncryptionRequest, pb.NeedsEncryptionResponse),
    )
}
server = grpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("kbs.plugin.v1.KbsPlugin", handlers),))
if not server.add_insecure_port(sys.argv[1]):
    sys.exit("the address is taken")
server.start()
server.wait_for_termination()
