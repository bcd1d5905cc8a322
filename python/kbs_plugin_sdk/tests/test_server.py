"""The server, in a process of its own, over the wire."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any

import grpc

from kbs_plugin_sdk.context import CONTEXT_TYPE, request_digest
from kbs_plugin_sdk.plugin import plugin_pb2
from kbs_plugin_sdk.plugin.plugin_pb2_grpc import KbsPluginStub

HERE = Path(__file__).parent
LONG = 30  # seconds; nothing should take as long


class Process:
    """The plugin of plugin.py."""

    def __init__(self, *args: str, **env: str) -> None:
        path = os.pathsep.join([str(HERE.parent / "src"), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, "-B", str(HERE / "plugin.py"), *args],
            env={**os.environ, "PYTHONPATH": path, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said = ""

    def wait_for(self, pattern: str, stream: Any = None) -> re.Match[str]:
        """Reads what it writes until that matches."""
        stream = stream or self.process.stderr
        while (found := re.search(pattern, self.said)) is None:
            if not select.select([stream], [], [], LONG)[0]:
                raise AssertionError(f"{pattern} never came: {self.said}")
            read = os.read(stream.fileno(), 1 << 16)  # past the file's buffer, which select knows nothing of
            if not read:
                raise AssertionError(f"it ended before {pattern}: {self.said}")
            self.said += read.decode()
        return found

    def port(self) -> int:
        return int(self.wait_for(r"\(port (\d+)\)")[1])

    def end(self, by: int = signal.SIGTERM) -> int:
        self.process.send_signal(by)
        out, err = self.process.communicate(timeout=LONG)
        self.said += err
        return self.process.returncode

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def handle(channel: Any, *path: str, body: bytes = b"") -> Any:
    return KbsPluginStub(channel).Handle(plugin_pb2.PluginRequest(method="GET", path=path, body=body), timeout=LONG)


def health(channel: Any, service: str) -> bytes:
    q = b"\x0a" + bytes([len(service)]) + service.encode() if service else b""
    answer: bytes = channel.unary_unary("/grpc.health.v1.Health/Check")(q, timeout=LONG)
    return answer


def base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class TestServer(unittest.TestCase):
    def test_serves_and_ends(self) -> None:
        for by in (signal.SIGTERM, signal.SIGINT):
            with Process() as p, grpc.insecure_channel(f"127.0.0.1:{p.port()}") as channel:
                self.assertIn("without TLS", p.said)
                got = handle(channel, body=b"\xff")
                self.assertEqual((got.body, got.status_code, got.content_type), (b"\xff", 200, "text/plain"))
                for service in ("", "kbs.plugin.v1.KbsPlugin"):
                    self.assertEqual(health(channel, service), b"\x08\x01")
                with self.assertRaises(grpc.RpcError) as unknown:
                    health(channel, "else")
                self.assertEqual(unknown.exception.code(), grpc.StatusCode.NOT_FOUND)
                self.assertEqual(p.end(by), 0, p.said)

    def test_an_exception_is_internal_without_its_text(self) -> None:
        with Process() as p, grpc.insecure_channel(f"127.0.0.1:{p.port()}") as channel:
            with self.assertRaises(grpc.RpcError) as failed:
                handle(channel, "fail")
            self.assertEqual(failed.exception.code(), grpc.StatusCode.INTERNAL)
            self.assertNotIn("canary", failed.exception.details())
            self.assertEqual(handle(channel).status_code, 200)
            p.end()
            self.assertIn("canary", p.said)

    def test_finishes_what_it_has_begun(self) -> None:
        with Process() as p, grpc.insecure_channel(f"127.0.0.1:{p.port()}") as channel:
            call = KbsPluginStub(channel).Handle.future(plugin_pb2.PluginRequest(method="GET", path=["slow"], body=b"x"), timeout=LONG)
            p.wait_for("handling")
            watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=LONG)
            self.assertEqual(next(watch), b"\x08\x01")
            p.process.send_signal(signal.SIGTERM)
            self.assertEqual(next(watch), b"\x08\x02")  # first it says so
            self.assertEqual(call.result().body, b"x")
            p.process.communicate(timeout=LONG)
            self.assertEqual(p.process.returncode, 0)

    def test_without_health(self) -> None:
        with Process("without") as p, grpc.insecure_channel(f"127.0.0.1:{p.port()}") as channel:
            with self.assertRaises(grpc.RpcError) as missing:
                health(channel, "")
            self.assertEqual(missing.exception.code(), grpc.StatusCode.UNIMPLEMENTED)

    def test_reflection_in_both_versions_or_a_loud_word(self) -> None:
        with Process() as p, grpc.insecure_channel(f"127.0.0.1:{p.port()}") as channel:
            if importlib.util.find_spec("grpc_reflection") is None:
                self.assertIn("reflection is off", p.said)
                return
            for version in ("v1", "v1alpha"):
                ask = channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")
                answer = next(ask(iter([b"\x3a\x01*"]), timeout=LONG))  # list_services
                self.assertIn(b"kbs.plugin.v1.KbsPlugin", answer)

    def test_who_calls(self) -> None:
        """A context as a broker signs it, with a key of now; and requests without a good one."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        key = Ed25519PrivateKey.generate()
        x = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        q = plugin_pb2.PluginRequest(method="GET", path=["who"])
        now = int(time.time())
        head = {"alg": "EdDSA", "typ": CONTEXT_TYPE, "kid": "k"}
        said = {"iss": "house", "aud": "models", "jti": "1", "iat": now, "exp": now + 60, "request": request_digest(q), "caller": "anybody"}
        raw = f"{base64url(json.dumps(head).encode())}.{base64url(json.dumps(said).encode())}"
        good = f"{raw}.{base64url(key.sign(raw.encode()))}"
        with tempfile.NamedTemporaryFile() as f:
            f.write(json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": base64url(x)}]}).encode())
            f.flush()
            with Process(CONTEXT_KEYS=f.name) as p, grpc.insecure_channel(f"127.0.0.1:{p.port()}") as channel:
                stub = KbsPluginStub(channel)
                for sent in ([], [("sallyport-context", good[:-4] + "AAAA")], [("sallyport-context", good)] * 2):
                    with self.assertRaises(grpc.RpcError) as refused:
                        stub.Handle(q, timeout=LONG, metadata=sent)
                    self.assertEqual(refused.exception.code(), grpc.StatusCode.UNAUTHENTICATED)
                    self.assertEqual(refused.exception.details(), "the plugin is not told who calls")
                self.assertEqual(stub.Handle(q, timeout=LONG, metadata=[("sallyport-context", good)]).body, b"house")
                with self.assertRaises(grpc.RpcError):
                    stub.Handle(q, timeout=LONG, metadata=[("sallyport-context", good)])
                p.end()
                self.assertIn("shown before", p.said)

    def test_tls_and_client_certificates(self) -> None:
        with tempfile.TemporaryDirectory() as d:
            crt, key = os.path.join(d, "crt"), os.path.join(d, "key")
            subprocess.run(
                ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                 "-subj", "/CN=plugin", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", crt],
                check=True, capture_output=True,
            )  # fmt: skip
            ca, own = Path(crt).read_bytes(), Path(key).read_bytes()
            with Process(crt, key) as p:
                at = f"127.0.0.1:{p.port()}"
                self.assertNotIn("without TLS", p.said)
                with grpc.secure_channel(at, grpc.ssl_channel_credentials(ca)) as channel:
                    self.assertEqual(handle(channel).status_code, 200)
                with grpc.insecure_channel(at) as channel, self.assertRaises(grpc.RpcError):
                    handle(channel)
            with Process(crt, key, crt) as p:
                at = f"127.0.0.1:{p.port()}"
                with grpc.secure_channel(at, grpc.ssl_channel_credentials(ca, own, ca)) as channel:
                    self.assertEqual(handle(channel).status_code, 200)
                with grpc.secure_channel(at, grpc.ssl_channel_credentials(ca)) as channel, self.assertRaises(grpc.RpcError):
                    handle(channel)

    def test_serves_a_host_at_a_socket(self) -> None:
        with tempfile.TemporaryDirectory() as d:
            with Process(SALLYPORT_PLUGIN="kbs.plugin.v1", PLUGIN_UNIX_SOCKET_DIR=d) as p:
                path = p.wait_for(r"^1\|1\|unix\|(\S+)\|grpc\n", p.process.stdout)[1]
                self.assertTrue(path.startswith(d + "/"))
                with grpc.insecure_channel("unix:" + path) as channel:
                    self.assertEqual(handle(channel).status_code, 200)
                    channel.unary_unary("/plugin.GRPCController/Shutdown")(b"", timeout=LONG)
                p.process.communicate(timeout=LONG)
                self.assertEqual(p.process.returncode, 0)
            with Process(SALLYPORT_PLUGIN="kbs.plugin.v1") as p:
                self.assertIn("folder", p.process.communicate(timeout=LONG)[1])
                self.assertNotEqual(p.process.returncode, 0)
