"""Who calls: by the vectors of the SDK in Go, which writes them with its own verifier
(``go test ./sdk/plugin/kbs -run Vectors -update``)."""

from __future__ import annotations

import asyncio
import base64
import json
import tempfile
import unittest
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kbs_plugin_sdk import (
    Context,
    ContextError,
    ContextVerifier,
    Guest,
    PluginHandler,
    PluginRequest,
    PluginResponse,
    current_context,
    key_file,
    key_url,
)
from kbs_plugin_sdk.testing import Broker

HERE = Path(__file__).parent
FILE = json.loads((HERE / "contexts.json").read_text())
SET = json.dumps(FILE["keys"]).encode()
GOOD: Mapping[str, Any] = FILE["vectors"][0]


def request(v: Mapping[str, Any]) -> PluginRequest:
    r = v["request"]
    body = base64.b64decode(r["Body"] or "")
    return PluginRequest(method=r["Method"], path=r["Path"], query=r["Query"], body=body)


class Keyring:
    """A broker's key set, and how often it was read."""

    def __init__(self) -> None:
        self.set, self.down, self.read = SET, False, 0

    def __call__(self) -> bytes:
        self.read += 1
        if self.down:
            raise OSError("down")
        return self.set


def one_key(number: int, **change: object) -> bytes:
    return json.dumps({"keys": [{**FILE["keys"]["keys"][number], **change}]}).encode()


class TestVectors(unittest.TestCase):
    def test_what_go_takes_and_refuses(self) -> None:
        self.assertGreater(sum("refused" in v for v in FILE["vectors"]), 20)
        for v in FILE["vectors"]:
            with self.subTest(v["name"]):
                at = float(v["at"])
                verifier = ContextVerifier(FILE["audience"], Keyring(), lambda at=at: at)  # type: ignore[misc]
                if "refused" in v:
                    with self.assertRaises(ContextError) as refused:
                        asyncio.run(verifier.verify(v["contexts"], request(v)))
                    self.assertEqual(str(refused.exception).partition(":")[0], v["refused"])
                    continue
                said, want = asyncio.run(verifier.verify(v["contexts"], request(v))), v["context"]
                self.assertEqual((said.broker, said.caller, said.administrator), (want["Broker"], want["Caller"], want["Administrator"]))
                self.assertEqual(said.expires.strftime("%Y-%m-%dT%H:%M:%SZ"), want["Expires"])
                if want["Guest"] is None:
                    self.assertIsNone(said.guest)
                    continue
                assert said.guest is not None
                devices = [vars(d) for d in said.guest.devices]
                self.assertEqual({**vars(said.guest), "devices": devices}, want["Guest"])

    def test_once(self) -> None:
        now = [float(GOOD["at"])]
        verifier = ContextVerifier(FILE["audience"], Keyring(), lambda: now[0])

        async def show() -> None:
            await verifier.verify(GOOD["contexts"], request(GOOD))
            for later in (0, 59):
                now[0] = GOOD["at"] + later
                with self.assertRaisesRegex(ContextError, "shown before"):
                    await verifier.verify(GOOD["contexts"], request(GOOD))

        asyncio.run(show())

    def test_texts_that_are_nearly_tokens(self) -> None:
        raw: str = GOOD["contexts"][0]
        head, claims, signature = raw.split(".")
        deep = base64.urlsafe_b64encode(b"[" * 5000).rstrip(b"=").decode()
        last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        twin = last[last.index(signature[-1]) ^ 1]  # differs in bits that no byte has
        for text in (
            "..", f"{head}=.{claims}.{signature}", f"{head}\n.{claims}.{signature}", f"{deep}.{claims}.{signature}",
            f"{head}.{claims}.{signature[:-1]}{twin}", f"{head}.{claims}.{signature}.", f" {raw}", f"{head}.{claims}.{signature[:-2]}",
            f"é{raw}", f"bnVsbA.{claims}.{signature}",
        ):  # fmt: skip
            with self.subTest(text[:20]), self.assertRaisesRegex(ContextError, "no signed token"):
                asyncio.run(ContextVerifier(FILE["audience"], Keyring(), lambda: GOOD["at"]).verify([text], request(GOOD)))

    def test_without_keys_everything_but_the_signature_counts(self) -> None:
        refused = {
            v["name"]
            for v in FILE["vectors"]
            if "refused" in v and not self.taken(ContextVerifier(FILE["audience"], None, lambda v=v: v["at"]), v)  # type: ignore[misc]
        }
        all_ = {v["name"] for v in FILE["vectors"] if "refused" in v}
        self.assertEqual(all_ - refused, {"changed claims", "no signature", "another's key", "an unknown key"})

    @staticmethod
    def taken(verifier: ContextVerifier, v: Mapping[str, Any]) -> bool:
        try:
            asyncio.run(verifier.verify(v["contexts"], request(v)))
        except ContextError:
            return False
        return True


class TestKeys(unittest.TestCase):
    def test_are_read_seldom_and_count_for_an_hour(self) -> None:
        ring, now = Keyring(), [float(GOOD["at"])]
        verifier = ContextVerifier(FILE["audience"], ring, lambda: now[0])
        ring.set = one_key(1, kid="two")

        def known(kid: str = "one") -> bool:
            async def look() -> bool:
                try:
                    await verifier._key(ring, kid)
                except ContextError:
                    return False
                return True

            return asyncio.run(look())

        self.assertFalse(known())
        ring.set = SET
        self.assertFalse(known() or known())
        self.assertEqual(ring.read, 1)
        now[0] += 10
        self.assertTrue(known())
        self.assertEqual(ring.read, 2)
        self.assertFalse(known("two"))  # withdrawn
        now[0] += 299
        self.assertTrue(known())
        now[0] += 1
        ring.down = True
        self.assertTrue(known())
        self.assertEqual(ring.read, 3)
        now[0] += 3600
        self.assertFalse(known())
        ring.down = False
        now[0] += 10
        self.assertTrue(known())

    def test_are_read_once_for_all_who_wait(self) -> None:
        ring = Keyring()
        verifier = ContextVerifier(FILE["audience"], ring, lambda: GOOD["at"])

        async def ask() -> None:
            first = asyncio.create_task(verifier._key(ring, "one"))
            others = [asyncio.create_task(verifier._key(ring, "one")) for _ in range(3)]
            await asyncio.sleep(0)
            first.cancel()  # it goes away, and takes them from nobody
            await asyncio.gather(*others)

        asyncio.run(ask())
        self.assertEqual(ring.read, 1)

    def test_sets_without_a_key_for_contexts(self) -> None:
        for text in (
            b"", b"[]", b"{}", b'{"keys":{}}', b'{"keys":[1]}', b"[" * 5000, b" " * (300 << 10), one_key(0), one_key(1, d="AAAA"),
            one_key(1, kid=""), one_key(1, x="AAAA"), one_key(1, x="*" * 43), one_key(1, kty="EC"),
        ):  # fmt: skip
            ring = Keyring()
            ring.set = text
            with self.subTest(text[:40]), self.assertRaisesRegex(ContextError, "read the broker's keys"):
                verifier = ContextVerifier(FILE["audience"], ring, lambda: GOOD["at"])
                asyncio.run(verifier.verify(GOOD["contexts"], request(GOOD)))

    def test_sources(self) -> None:
        with tempfile.NamedTemporaryFile() as f:
            f.write(SET)
            f.flush()
            self.assertEqual(key_file(f.name)(), SET)
        for url in ("http://broker/keys", "file:///etc/passwd", "broker"):
            with self.assertRaisesRegex(ValueError, "no https URL"):
                key_url(url)
        with self.assertRaises(ValueError):
            ContextVerifier("", None)


class TestHandler(unittest.TestCase):
    def test_knows_who_calls(self) -> None:
        who = Context("house", "guest", guest=Guest("w-1"))

        class Plain(PluginHandler):
            def handle(self, request: PluginRequest) -> PluginResponse:
                guest = current_context().guest
                return PluginResponse(body=(guest.workload if guest else "").encode())

        class Waiting(PluginHandler):
            async def handle(self, request: PluginRequest) -> PluginResponse:
                return PluginResponse(body=current_context().caller.encode())

        self.assertEqual(Broker(Plain()).request("GET", "x", context=who).body, b"w-1")
        self.assertEqual(Broker(Waiting()).request("GET", "x", context=who).body, b"guest")
        with self.assertLogs("kbs_plugin_sdk", "ERROR"):
            self.assertEqual(Broker(Waiting()).request("GET", "x").error, "PluginInternalError")
