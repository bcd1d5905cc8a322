"""Every role, called through the wire's messages."""

from __future__ import annotations

import threading
import time
import unittest
from collections.abc import Callable

from sallyport_sdk import Bounds, Conflict, Denied, Invalid, Notification, Refused, Unavailable, Unimplemented, Urgency
from sallyport_sdk.errors import of_wire
from sallyport_sdk.pb import sallyport_pb2 as pb
from sallyport_sdk.serving import Server
from sallyport_sdk.testing import FakeHost, Harness, principal

from .everything import SECRET, Judge, Token, all_roles


class Roles(unittest.TestCase):
    def setUp(self) -> None:
        self.token, self.pager, self.judge, self.watch = all_roles()
        self.host = FakeHost()
        self.plugin = Harness(self.token, self.pager, self.judge, self.watch, host=self.host)

    def test_issue(self) -> None:
        got = self.plugin.issue("token", {"audience": "billing"}, 600, bounds=Bounds("token", {"access": "read"}, 60))
        self.assertEqual(got.value, b"token for billing")
        self.assertEqual((dict(got.scope.params), got.scope.ttl, got.handle), ({"audience": "billing", "access": "read"}, 60, "h1"))

    def test_issue_hides_what_the_host_adds(self) -> None:
        self.assertEqual(dict(self.plugin.issue("token", {"audience": "x"}, host={"serial": "7"}).scope.params), {"audience": "x"})

    def test_vet(self) -> None:
        self.plugin.vet("token", {"audience": "billing"})
        with self.assertRaisesRegex(Invalid, "audience must say"):
            self.plugin.vet("token")

    def test_revoke(self) -> None:
        self.assertTrue(self.plugin.supports("token"))
        self.plugin.revoke("token", "h1")
        self.assertEqual(self.token.gone, ["h1"])
        with self.assertRaises(Unimplemented):
            self.plugin.revoke("token", "manual")

    def test_notify(self) -> None:
        self.plugin.notify(Notification("1", "grant.revoked", Urgency.HIGH, "gone"))
        self.assertEqual(self.host.logged, [("warn", "gone", {"id": "1"})])

    def test_judge(self) -> None:
        answer = self.plugin.judge("sample", b"bound", b"bound")
        self.assertEqual((answer.claims, answer.device_class, answer.checks[0].result), (b'{"svn": 7}', pb.CLASS_CPU, pb.RESULT_PASS))
        with self.assertRaises(Denied):
            self.plugin.judge("sample", b"bound", b"other")

    def test_events_and_gates(self) -> None:
        self.assertEqual(self.watch.started, 1)
        self.plugin.event("grant.issued", "01S", kind="token")
        self.assertEqual([(e.type, e.subject, dict(e.data)) for e in self.watch.events], [("grant.issued", "01S", {"kind": "token"})])
        self.assertEqual(self.plugin.gate("release", kind="token"), (True, ""))
        self.assertEqual(self.plugin.gate("release", kind="root"), (False, "nobody gets root"))

    def test_routes(self) -> None:
        answer = self.plugin.request("GET", "/who", query="a=b", principal=principal(name="bob"))
        self.assertEqual((answer.status, answer.body, answer.headers["x-path"]), (200, b"bob a=b", "/who"))

    def test_large_bodies(self) -> None:
        body = bytes(range(256)) * 4000  # beyond what may be sent ahead, both ways
        self.assertEqual(self.plugin.request("POST", "/twice", body=body).body, body * 2)

    def test_no_failure_says_why(self) -> None:
        """An exception in any handler is logged, and the caller gets none of its text."""
        calls: dict[str, Callable[[], object]] = {
            "issue": lambda: self.plugin.issue("token", {"do": "fail"}),
            "revoke": lambda: self.plugin.revoke("token", "fail"),
            "notify": lambda: self.plugin.notify(Notification("1", "fail")),
            "judge": lambda: self.plugin.judge("sample", b"fail"),
            "hook": lambda: self.plugin.event("fail"),
            "gate": lambda: self.plugin.gate("release", fail=True),
            "route": lambda: self.plugin.request("GET", "/fail"),
            "a route that has begun": lambda: self.plugin.request("GET", "/break"),
        }
        for name, call in calls.items():
            with self.subTest(name), self.assertLogs("sallyport_sdk", "ERROR") as logged:
                with self.assertRaises(Unavailable) as raised:
                    call()
                self.assertNotIn(SECRET, str(raised.exception))
            self.assertIn("RuntimeError", logged.output[0])
            self.assertIn("everything.py", logged.output[0])

    def test_blocking_harms_nobody(self) -> None:
        held = [threading.Thread(target=self._hold) for _ in range(5)]
        for t in held:
            t.start()
        self.assertEqual(self.plugin.issue("token", {"audience": "x"}).value, b"token for x")
        self.token.held.set()
        for t in held:
            t.join()

    def _hold(self) -> None:
        self.plugin.issue("token", {"do": "hold"})

    def test_late(self) -> None:
        self.token.held.clear()
        begun = time.monotonic()
        with self.assertRaisesRegex(Unavailable, "not done in time"):
            self.plugin._do(self.plugin._ask(pb.HostFrame(timeout_ms=50, issue=pb.IssueRequest(requested=pb.Scope(params=b'{"do":"hold"}')))))
        self.assertLess(time.monotonic() - begun, 20)
        self.token.held.set()

    def test_unknown_call(self) -> None:
        with self.assertRaises(Unimplemented):
            self.plugin._do(self.plugin._ask(pb.HostFrame()))


class Services(unittest.TestCase):
    def test_key_value(self) -> None:
        host = FakeHost()
        plugin = Harness(Token(), host=host)
        self.assertEqual(plugin.issue("token", {"do": "kv"}).value, b"v1")
        self.assertEqual(plugin.issue("token", {"do": "kv"}).value, b"v2")

    def test_what_was_not_granted(self) -> None:
        with self.assertRaisesRegex(Denied, "kv was not granted"):
            Harness(Token(), host=FakeHost(services=())).issue("token", {"do": "kv"})

    def test_all(self) -> None:
        token, host = Token(), FakeHost()
        plugin = Harness(token, host=host)
        self.addCleanup(plugin.close)
        h = token.host
        h.kv_put("a", b"1", if_version=0)
        with self.assertRaises(Conflict):
            h.kv_put("a", b"2", if_version=7)
        self.assertEqual(h.kv_keys("a"), (["a"], False))
        h.kv_delete("a", if_version=1)
        self.assertEqual(h.kv_get("a"), (b"", 0))
        table = "CREATE TABLE extension_t (n INTEGER, s TEXT, b BLOB, r REAL)"
        for sql in (table, "PRAGMA user_version", "BEGIN"):  # as a host
            with self.assertRaises(Denied):
                h.execute((sql,))
        host.database.execute(table)
        self.assertEqual(h.execute(("INSERT INTO extension_t VALUES ($1, $2, $3, $4)", 7, "x", b"\0", None)), [1])
        with self.assertRaises(Invalid):
            h.execute(("DELETE FROM extension_t",), ("DELETE FROM nothing",))
        found = h.query("SELECT * FROM extension_t WHERE n = $1", 7)
        self.assertEqual((found.columns, found.rows), (["n", "s", "b", "r"], [(7, "x", b"\0", None)]))
        h.emit("seen", where="here")
        h.log("hello", level="error")
        self.assertEqual((host.emitted, host.logged), ([("seen", {"where": "here"})], [("error", "hello", {})]))
        self.assertEqual(h.report_leak(value=b"x", source="scanner"), ("01RECORD1", 1))
        self.assertEqual(h.vend("token", {"a": "b"}, 60).value, b"a-credential")


class Configuration(unittest.TestCase):
    def test_configure(self) -> None:
        token = Token()
        Harness(token, config={"endpoint": "x"})
        self.assertEqual(token.config, {"endpoint": "x"})

    def test_refused(self) -> None:
        with self.assertRaisesRegex(ValueError, "bad must not be there"):
            Harness(Token(), config={"bad": True})
        with self.assertRaisesRegex(ValueError, "takes no configuration"):
            Harness(Judge(), config={"any": "thing"})

    def test_secrets_stay_out_of_the_log(self) -> None:
        from sallyport_sdk._run import mask

        with self.assertLogs("sallyport_sdk", "ERROR") as logged, self.assertRaises(ValueError) as raised:
            Harness(Token(), config={"worse": True, "password": SECRET})
        self.assertNotIn(SECRET, str(raised.exception))
        mask.filter(logged.records[0])
        self.assertNotIn(SECRET, logged.records[0].getMessage())


class Offers(unittest.TestCase):
    def test_a_role_once(self) -> None:
        for bad in ((), (Token(), Token())):
            with self.subTest(bad), self.assertRaises(ValueError):
                Server(*bad, name="x", version="1.0.0")

    def test_codes(self) -> None:
        for code in pb.Code.keys():
            self.assertIsInstance(of_wire(pb.Refusal(code=code, reason="x")), Refused)
