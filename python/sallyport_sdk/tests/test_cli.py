"""The command line's side: the handover, proofs, the client, and commands."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import unittest
from pathlib import Path
from typing import Any

from sallyport_sdk.cli import _proof
from sallyport_sdk.cli.handover import NotHandedOver, parse

SRC = Path(__file__).parents[1] / "src"

# RFC 8032, 7.1: secret key, public key, message, signature.
VECTORS = (
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60", "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb", "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
)  # fmt: skip


class Proof(unittest.TestCase):
    def test_ed25519(self) -> None:
        for seed, _, message, signature in VECTORS:
            self.assertEqual(_proof.sign_plainly(bytes.fromhex(seed), bytes.fromhex(message)).hex(), signature)

    def test_proof(self) -> None:
        seed, public = bytes.fromhex(VECTORS[0][0]), bytes.fromhex(VECTORS[0][1])
        key = {"kty": "OKP", "crv": "Ed25519", "x": _proof.encode(public), "d": _proof.encode(seed)}
        text = _proof.proof(key, "GET", "https://h/p", "token", now=7)
        header, claims, signature = (_proof.decode(p) for p in text.split("."))
        self.assertEqual(json.loads(header), {"alg": "EdDSA", "jwk": {"crv": "Ed25519", "kty": "OKP", "x": key["x"]}, "typ": "dpop+jwt"})
        said = json.loads(claims)
        self.assertEqual((said["htm"], said["htu"], said["iat"]), ("GET", "https://h/p", 7))
        self.assertEqual(said["ath"], _proof.encode(hashlib.sha256(b"token").digest()))
        self.assertEqual(signature, _proof.sign_plainly(seed, text.rpartition(".")[0].encode()))
        self.assertNotIn(key["d"], text)


class Document(unittest.TestCase):
    def test_strict(self) -> None:
        for bad in (b"", b"[]", b"{}", b'{"schema":"other"}', b'{"schema":"sallyport.handover/v1","session":{}}', b" " * (33 << 10)):
            with self.subTest(bad[:30]), self.assertRaises(NotHandedOver):
                parse(bad)
        self.assertEqual(parse(b'{"schema":"sallyport.handover/v1","plugin":"tags","new":1}').plugin, "tags")

    def test_secrets_are_not_shown(self) -> None:
        found = parse(b'{"schema":"sallyport.handover/v1","session":{"token":"abc","key":{"d":"def"}}}')
        self.assertNotIn("abc", repr(found))
        self.assertNotIn("def", repr(found))


PLUGIN = '''
import click
from sallyport_sdk.cli import AttestationClient, get_token
from sallyport_sdk.extensions import CliPlugin

class Tags(CliPlugin):
    name = "tags"
    version = "1.0.0"

    def register(self, cli):
        @cli.group("tag")
        def tag():
            """Manage machine tags."""

        @tag.command("list")
        @click.argument("machine")
        @click.option("--url", default=None)
        @click.option("--bare", is_flag=True)
        def listed(machine, url, bare):
            client = AttestationClient(url, None if bare else get_token())
            click.echo(client.get("/tags/" + machine, params={"q": "a b"}))

        @tag.command("context")
        @click.pass_context
        def context(ctx):
            click.echo(ctx.obj)

class Broken:
    def __init__(self):
        raise RuntimeError("broken")
'''


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with what it was asked."""

    def do_GET(self) -> None:
        status = 403 if "denied" in self.path else 200
        said = {"detail": "policy says no"} if status == 403 else [self.path, self.headers.get("Authorization", ""), bool(self.headers.get("DPoP"))]
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


class Commands(unittest.TestCase):
    def setUp(self) -> None:
        import tempfile

        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        Path(self.folder, "tags.py").write_text(PLUGIN)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        seed = base64.urlsafe_b64encode(bytes(32)).rstrip(b"=").decode()
        self.document: dict[str, Any] = {
            "schema": "sallyport.handover/v1", "plugin": "tags", "version": "1.0.0", "command": "tag", "output": "json", "url": self.url,
            "entry_points": {"tags": "tags:Tags"}, "session": {"token": "t0ken", "key": {"x": seed, "d": seed}},
        }  # fmt: skip

    def run_command(self, *arguments: str, handed: bool = True) -> subprocess.CompletedProcess[str]:
        read, write = os.pipe()
        os.write(write, json.dumps(self.document).encode())
        os.close(write)
        path = os.pathsep.join([str(SRC), self.folder, os.environ.get("PYTHONPATH", "")])
        env = {"PYTHONPATH": path, **({"SALLYPORT_HANDOVER": str(read)} if handed else {})}
        try:
            return subprocess.run(
                [sys.executable, "-B", "-m", "sallyport_sdk.cli", *arguments],
                env=env, pass_fds=[read], capture_output=True, text=True, timeout=60,
            )  # fmt: skip
        finally:
            os.close(read)

    def test_a_command(self) -> None:
        done = self.run_command("tag", "list", "m1")
        self.assertEqual(done.stdout.strip(), "['/tags/m1?q=a+b', 'DPoP t0ken', True]", done.stderr)
        self.assertIn("DPoP t0ken", self.run_command("tag", "list", "m1", "--bare").stdout)
        self.assertIn("MACHINE", self.run_command("tag", "list", "--help").stdout)
        self.assertIn("'output': 'json'", self.run_command("tag", "context").stdout)

    def test_refusals(self) -> None:
        done = self.run_command("tag", "list", "denied")
        self.assertEqual((done.returncode, done.stderr.strip()), (4, "policy says no"))

    def test_the_session_goes_nowhere_else(self) -> None:
        other = self.url.replace("127.0.0.1", "localhost")
        done = self.run_command("tag", "list", "m1", "--url", other)
        self.assertEqual(done.returncode, 4)
        self.assertIn("goes nowhere else", done.stderr)
        self.assertIn("'', False", self.run_command("tag", "list", "m1", "--url", other, "--bare").stdout)

    def test_without_a_session(self) -> None:
        del self.document["session"]
        self.document["no_session"] = "log in first: sallyport auth login"
        done = self.run_command("tag", "list", "m1")
        self.assertEqual((done.returncode, done.stderr.strip()), (1, "log in first: sallyport auth login"))

    def test_a_broken_one_harms_no_other(self) -> None:
        self.document["entry_points"]["broken"] = "tags:Broken"
        done = self.run_command("tag", "context")
        self.assertEqual(done.returncode, 0)
        self.assertEqual(done.stderr.count("warning: broken of tags does not load"), 1)

    def test_not_by_hand(self) -> None:
        done = self.run_command("tag", handed=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("started by it", done.stderr)

    def test_import_without_click_and_grpc(self) -> None:
        code = "import sys; sys.modules['click'] = sys.modules['grpc'] = sys.modules['google'] = None; import sallyport_sdk, sallyport_sdk.cli; print(sallyport_sdk.CliPlugin.__name__)"
        path = os.pathsep.join([str(SRC), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [sys.executable, "-B", "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=60
        )
        self.assertEqual(done.stdout.strip(), "CliPlugin", done.stderr)
