"""A plugin as a process of its own: the handshake, the socket, the end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import grpc

from sallyport_sdk.pb import sallyport_pb2 as pb

ROOT = Path(__file__).parents[1]
PLUGIN = "/sallyport.plugin.v1.Plugin/"


class Process(unittest.TestCase):
    def start(self, *code: str, cookie: tuple[str, str] = ("SALLYPORT_PLUGIN", "sallyport.plugin.v1"), **more: str) -> str:
        """Starts a plugin as a host does, and gives the line of its handshake."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        env = {
            **more,
            cookie[0]: cookie[1],
            "PLUGIN_UNIX_SOCKET_DIR": folder.name,
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-B", "-u", *code], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.addCleanup(self.end)
        assert self.process.stdout
        line = self.process.stdout.readline().decode()
        while line.startswith("printed"):  # before serve standard output is the author's
            line = self.process.stdout.readline().decode()
        if not line:
            return ""
        _, _, _, address, _ = line.strip().split("|")
        self.channel = grpc.insecure_channel("unix:" + address, options=[("grpc.max_receive_message_length", 8 << 20)])
        self.addCleanup(self.channel.close)
        return line.strip()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def call(self, method: str, request: Any, answer: Any) -> Any:
        return self.channel.unary_unary(method, lambda m: m.SerializeToString(), answer.FromString)(request, timeout=20)

    def everything(self) -> None:
        self.assertRegex(self.start("-m", "tests.everything"), r"^1\|1\|unix\|/.*/plugin.sock\|grpc$")

    def test_without_a_host(self) -> None:
        self.assertEqual(self.start("-m", "tests.everything", cookie=("X", "y")), "")
        self.assertEqual(self.process.wait(20), 1)

    @unittest.skipUnless(sys.platform == "linux", "elsewhere the certificate is needed")
    def test_agentkms_needs_no_certificate(self) -> None:
        code = (
            "from sallyport_sdk.agentkms import ScopeAnalyzer, serve_agentkms\n"
            "class Quiet(ScopeAnalyzer):\n"
            "    def analyze(self, scope): return []\n"
            "serve_agentkms(Quiet(), kind='quiet')"
        )
        line = self.start("-c", code, cookie=("PLUGIN_MAGIC_COOKIE", "agentkms_plugin_v1"), PLUGIN_CLIENT_CERT="a host offers one")
        self.assertRegex(line, r"^1\|1\|unix\|/.*/plugin.sock\|grpc$")

    def test_info_health_end(self) -> None:
        self.everything()
        info = self.call(PLUGIN + "Info", pb.InfoRequest(), pb.InfoResponse)
        self.assertEqual((info.name, info.version, list(info.kinds)), ("everything", "1.0.0", ["token"]))
        self.assertEqual(sorted(info.roles), ["credential-vender", "extension", "notifier", "revoker", "verifier"])
        health = self.channel.unary_unary("/grpc.health.v1.Health/Check")
        self.assertEqual(health(b"\x0a\x06plugin", timeout=20), b"\x08\x01")
        self.process.send_signal(signal.SIGTERM)
        self.assertEqual(self.process.wait(20), 0)

    def test_calls(self) -> None:
        self.everything()
        frames: Queue[pb.HostFrames | None] = Queue()

        def issue(number: int, **params: str) -> pb.HostFrame:
            text = ",".join(f'"{n}":"{v}"' for n, v in params.items())
            scope = pb.Scope(kind="token", params=f"{{{text}}}".encode(), ttl_seconds=60)
            return pb.HostFrame(id=number, timeout_ms=20000, issue=pb.IssueRequest(requested=scope, bounds=pb.Bounds(max_ttl_seconds=60)))

        def sending() -> Iterator[pb.HostFrames]:
            while message := frames.get():
                yield message

        answers = self.channel.stream_stream(PLUGIN + "Calls", lambda m: m.SerializeToString(), pb.PluginFrames.FromString)(sending())
        # One blocks, one is cancelled, one prints, two hundred are answered in one message.
        frames.put(pb.HostFrames(frames=[issue(1000, do="sleep"), issue(1001, do="print")]))
        frames.put(pb.HostFrames(frames=[pb.HostFrame(id=1000, cancel=pb.Cancel())]))
        frames.put(pb.HostFrames(frames=[issue(n, audience=str(n)) for n in range(1, 201)]))
        got: dict[int, bytes] = {}
        messages = 0
        for message in answers:
            messages += 1
            got.update((f.id, f.issue.value) for f in message.frames)
            if len(got) == 201:
                break
        self.assertEqual({n: v for n, v in got.items() if n < 1000}, {n: b"token for %d" % n for n in range(1, 201)})
        self.assertNotIn(1000, got)
        frames.put(None)  # to drain
        self.assertEqual(list(answers), [])
        self.process.send_signal(signal.SIGTERM)
        self.assertEqual(self.process.wait(20), 0)  # although a function still sleeps
        out, err = self.process.communicate()
        self.assertEqual(out, b"")
        self.assertIn(b"printed", err)

    def test_strange_frames(self) -> None:
        """Each is answered once: a number that runs already, no body, no JSON."""
        self.everything()
        frames = [
            pb.HostFrame(id=1, cancel=pb.Cancel()),
            pb.HostFrame(id=2),
            pb.HostFrame(id=3, issue=pb.IssueRequest()),
            pb.HostFrame(id=3, issue=pb.IssueRequest(requested=pb.Scope(params=b"[no json", ttl_seconds=-1))),
        ]
        calls = self.channel.stream_stream(PLUGIN + "Calls", lambda m: m.SerializeToString(), pb.PluginFrames.FromString)
        answers = [f for m in calls(iter([pb.HostFrames(), pb.HostFrames(frames=frames)])) for f in m.frames]
        self.assertEqual(sorted(f.id for f in answers), [2, 3, 3])

    def test_services(self) -> None:
        self.everything()
        answers: Queue[pb.HostAnswer | None] = Queue()
        answers.put(pb.HostAnswer(welcome=pb.Welcome(services=["kv"], max_outstanding=2)))
        calls = self.channel.stream_stream(PLUGIN + "Services", lambda m: m.SerializeToString(), pb.HostCall.FromString)(iter(answers.get, None))
        issue = pb.HostFrame(id=1, issue=pb.IssueRequest(requested=pb.Scope(params=b'{"do":"kv"}'), bounds=pb.Bounds()))
        threading.Thread(target=self._answer, args=(calls, answers), daemon=True).start()
        frames = self.channel.stream_stream(PLUGIN + "Calls", lambda m: m.SerializeToString(), pb.PluginFrames.FromString)
        (message,) = list(frames(iter([pb.HostFrames(frames=[issue])])))
        self.assertEqual(message.frames[0].issue.value, b"from the host9")
        answers.put(None)

    @staticmethod
    def _answer(calls: Any, answers: Any) -> None:
        with contextlib.suppress(grpc.RpcError):  # the test closes the channel
            for call in calls:
                answers.put(pb.HostAnswer(id=call.id + 1000, done=pb.Done()))  # to nobody
                answers.put(pb.HostAnswer(id=call.id, kv_value=pb.KvValue(value=b"from the host", version=9)))

    def test_noise(self) -> None:
        """What is no message, and what is too large, fails that call alone."""
        self.everything()
        raw = self.channel.unary_unary(PLUGIN + "Info")
        for bad in (b"\xff\xff\xff", bytes(5 << 20)):
            with self.assertRaises(grpc.RpcError):
                raw(bad, timeout=20)
        self.assertEqual(self.call(PLUGIN + "Info", pb.InfoRequest(), pb.InfoResponse).name, "everything")

    def test_a_failure_that_is_unary(self) -> None:
        self.everything()
        with self.assertRaises(grpc.RpcError) as raised:
            self.call("/sallyport.plugin.v1.Extension/Stop", pb.StopRequest(), pb.StopResponse)
        self.assertEqual((raised.exception.code(), raised.exception.details()), (grpc.StatusCode.INTERNAL, "the plugin failed"))

    def test_starts_in_time(self) -> None:
        begun = time.monotonic()
        self.everything()
        self.assertLess(time.monotonic() - begun, 10)
