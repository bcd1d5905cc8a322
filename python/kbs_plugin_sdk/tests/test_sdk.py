"""What authors write, against the in-memory broker."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import unittest
from typing import Any

import kbs_plugin_sdk
from kbs_plugin_sdk import PluginHandler, PluginRequest, PluginResponse, PluginServer, TlsConfig
from kbs_plugin_sdk.plugin.plugin_pb2 import NeedsEncryptionRequest, ValidateAuthRequest
from kbs_plugin_sdk.testing import Broker


class MyPlugin(PluginHandler):
    """As the original SDK's documentation has it."""

    async def handle(self, request: PluginRequest) -> PluginResponse:
        return PluginResponse(body=b"ok", status_code=200)

    async def validate_auth(self, request: ValidateAuthRequest) -> bool:
        return request.method == "POST"

    async def needs_encryption(self, request: NeedsEncryptionRequest) -> bool:
        return True


class Plain(PluginHandler):
    """Plain functions in place of coroutines."""

    def handle(self, request: PluginRequest) -> PluginResponse:
        said = f"{request.method} {'/'.join(request.path)} {request.query['q']} ".encode() + request.body
        return PluginResponse(body=said)

    def needs_encryption(self, request: NeedsEncryptionRequest) -> bool:
        return False


class Broken(PluginHandler):
    """Does whatever a test says, in each of the three."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers

    def _answer(self, name: str, default: Any) -> Any:
        answer = self.answers.get(name, default)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def handle(self, request: PluginRequest) -> PluginResponse:
        return self._answer("handle", PluginResponse())  # type: ignore[no-any-return]

    async def validate_auth(self, request: ValidateAuthRequest) -> bool:
        return self._answer("validate_auth", False)  # type: ignore[no-any-return]

    async def needs_encryption(self, request: NeedsEncryptionRequest) -> bool:
        return self._answer("needs_encryption", True)  # type: ignore[no-any-return]


class TestBroker(unittest.TestCase):
    def test_asks_guests_questions_in_order(self) -> None:
        got = Broker(MyPlugin()).request("GET", "a/b")
        self.assertEqual((got.status, got.body, got.sealed), (200, b"ok", True))
        self.assertEqual(got.calls, ["ValidateAuth", "Handle", "NeedsEncryption"])

    def test_lets_administrators_alone_pass_where_the_plugin_says_so(self) -> None:
        self.assertEqual(Broker(MyPlugin()).request("POST", "").error, "AdminAuthInitialization")
        got = Broker(MyPlugin()).request("POST", "", admin=True)
        self.assertEqual((got.status, got.sealed, got.calls), (200, False, ["ValidateAuth", "Handle"]))
        self.assertEqual(Broker(MyPlugin()).request("GET", "", attested=False).error, "TokenNotFound")

    def test_passes_the_request_on(self) -> None:
        got = Broker(Plain()).request("PUT", "a//b/", {"q": "x"}, b"\xff")
        self.assertEqual((got.status, got.body, got.sealed), (200, b"PUT a//b/ x \xff", False))

    def test_has_the_limits_of_a_broker(self) -> None:
        self.assertEqual(Broker(MyPlugin()).request("PATCH", "").status, 405)
        self.assertEqual(Broker(MyPlugin()).request("PUT", "", body=b"x" * (2 << 20) + b"x").status, 413)

    def test_sends_status_0_as_200_and_takes_the_two_hundreds(self) -> None:
        for status, want in ((0, 200), (200, 200), (204, 200), (299, 200), (300, 401), (404, 401), (503, 401)):
            got = Broker(Broken(handle=PluginResponse(status_code=status))).request("GET", "")
            self.assertEqual(got.status, want, status)
            assert got.plugin is not None
            self.assertEqual(got.plugin.status_code, status or 200)


class TestFailures(unittest.TestCase):
    def failing(self, **answers: Any) -> str:
        with self.assertLogs("kbs_plugin_sdk", logging.WARNING) as logged:
            got = Broker(Broken(**answers)).request("GET", "")
        self.assertEqual((got.status, got.error, got.body), (401, "PluginInternalError", b""))
        return "\n".join(logged.output)

    def test_an_exception_is_logged_and_goes_no_further(self) -> None:
        for name in ("handle", "validate_auth", "needs_encryption"):
            self.assertIn("canary", self.failing(**{name: ValueError("canary")}))

    def test_no_decision_is_no_decision(self) -> None:
        for answer in (None, 0, 1, "False"):
            self.failing(validate_auth=answer)
            self.failing(needs_encryption=answer)

    def test_what_is_no_answer_is_refused(self) -> None:
        for answer in (None, b"ok", PluginResponse(status_code=99), PluginResponse(status_code=1000), PluginResponse(status_code=-1)):
            self.failing(handle=answer)

    def test_an_answer_that_brokers_would_drop_is_refused(self) -> None:
        self.assertIn("larger", self.failing(handle=PluginResponse(body=b"x" * (4 << 20))))

    def test_a_blocking_function_keeps_nobody_waiting(self) -> None:
        released = threading.Event()

        class Blocking(MyPlugin):
            def handle(self, request: PluginRequest) -> PluginResponse:  # type: ignore[override]
                if request.method == "GET":
                    released.wait(30)
                return PluginResponse()

        async def both() -> None:
            broker = Broker(Blocking())
            slow = asyncio.create_task(broker.ask("GET", ""))
            self.assertEqual((await broker.ask("DELETE", "")).status, 200)
            self.assertFalse(slow.done())
            released.set()
            await slow

        asyncio.run(both())


class TestSurface(unittest.TestCase):
    def test_has_the_names_of_the_original(self) -> None:
        for name in ("PluginHandler", "PluginRequest", "PluginResponse", "PluginServer", "TlsConfig"):
            self.assertIn(name, kbs_plugin_sdk.__all__)
        server = PluginServer(MyPlugin())
        self.assertIs(server.with_address("0.0.0.0:50051"), server)
        self.assertIs(server.with_tls(TlsConfig.server_tls("server.crt", "server.key")), server)
        self.assertIs(server.without_health(), server)
        self.assertTrue(inspect.iscoroutinefunction(server.serve))

    def test_handle_alone_is_required(self) -> None:
        with self.assertRaises(TypeError):
            PluginHandler()  # type: ignore[abstract]

        class Least(PluginHandler):
            async def handle(self, request: PluginRequest) -> PluginResponse:
                return PluginResponse()

        got = Broker(Least()).request("POST", "")
        self.assertEqual((got.status, got.sealed), (200, True))

    def test_field_5_stays_free(self) -> None:
        fields = {f.number: f.name for f in PluginRequest.DESCRIPTOR.fields}
        self.assertEqual(fields, {1: "body", 2: "query", 3: "path", 4: "method"})
