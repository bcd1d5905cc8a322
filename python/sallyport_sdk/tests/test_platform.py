"""Extensions as the attestation platform has them, with FastAPI and SQLModel.

Debian has neither; the suite runs with the packages of PyPI too, and these tests there.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import subprocess
import sys
import threading
import unittest
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sallyport_sdk import AttestationExtension, Unavailable
from sallyport_sdk.core.eventbus import EventBus
from sallyport_sdk.core.events import NodeEvent, NodeEventPayload
from sallyport_sdk.hooks import NodeContext, OnlineContext, on_any_event, on_online
from sallyport_sdk.testing import FakeHost, Harness

SEED = Path(__file__).parent / "seed"


class Bare(AttestationExtension):
    """Hooks only."""

    name = "bare"
    version = "1.0.0"
    description = "Listens"

    def __init__(self) -> None:
        self.said: list[str] = []

    def get_router(self) -> None:
        return None

    async def on_startup(self) -> None:
        self.said.append("started")


class Hooks(unittest.TestCase):
    def test_contexts(self) -> None:
        seen: list[NodeContext] = []

        @on_online
        async def online(ctx: OnlineContext) -> None:
            seen.append(ctx)
            if ctx.hostname == "bad":
                raise RuntimeError("no")

        @on_any_event
        async def every(ctx: NodeContext) -> None:
            seen.append(ctx)

        bare = Bare()
        plugin = Harness(bare)
        self.addCleanup(plugin.close)
        self.assertEqual(bare.said, ["started"])
        node: Mapping[str, Any] = {"hostname": "m1", "role": "worker", "first_seen_at": "2026-01-02T03:04:05Z"}
        plugin.event("node.online", at=1.5, ek_fingerprint="ab", node=node)
        self.assertEqual(len(seen), 2)
        first = seen[0]
        assert isinstance(first, OnlineContext) and first.first_seen_at
        self.assertEqual((first.hostname, first.role, first.ek_fingerprint, first.first_seen_at.year), ("m1", "worker", "ab", 2026))
        plugin.event("grant.issued")  # not of a machine
        self.assertEqual(len(seen), 2)
        with self.assertLogs("sallyport_sdk", "ERROR"), self.assertRaises(Unavailable):
            plugin.event("node.online", node={"hostname": "bad"})
        self.assertEqual(len(seen), 4)  # the other one heard of it

    def test_bus(self) -> None:
        bus, seen = EventBus(), []

        @bus.on(NodeEvent.NODE_REGISTERED, NodeEvent.NODE_ONLINE)
        async def both(payload: NodeEventPayload) -> None:
            seen.append(payload.event.value)

        for event in NodeEvent:
            asyncio.run(bus.emit(NodeEventPayload(event)))
        self.assertEqual(seen, ["node.registered", "node.online"])

    def test_nobody_waits(self) -> None:
        bus, told = EventBus(), threading.Event()
        bus.loop = asyncio.new_event_loop()
        thread = threading.Thread(target=bus.loop.run_forever)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(bus.loop.call_soon_threadsafe, bus.loop.stop)

        @bus.on_any()
        async def every(payload: NodeEventPayload) -> None:
            told.set()

        bus.emit_nowait(NodeEventPayload(NodeEvent.NODE_ONLINE))
        self.assertTrue(told.wait(60))


if importlib.util.find_spec("fastapi") and importlib.util.find_spec("sqlmodel"):

    class Guide(unittest.TestCase):
        def test_its_four_tests(self) -> None:
            path = os.pathsep.join([str(SEED / "src"), str(SEED.parents[1] / "src"), os.environ.get("PYTHONPATH", "")])
            done = subprocess.run(
                [sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
                cwd=SEED, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=120,
            )  # fmt: skip
            self.assertIn("4 passed", done.stdout, done.stdout + done.stderr)

        def test_its_extension_runs(self) -> None:
            sys.path.insert(0, str(SEED / "src"))
            self.addCleanup(sys.path.remove, str(SEED / "src"))
            MyExtension = importlib.import_module("mypackage.extension").MyExtension

            host = FakeHost()
            host.database.execute(
                "CREATE TABLE extension_myext_tags (tag_id INTEGER PRIMARY KEY, machine_id TEXT NOT NULL, label TEXT NOT NULL, created_by TEXT NOT NULL)"
            )
            plugin = Harness(MyExtension(), host=host)
            self.addCleanup(plugin.close)
            made = plugin.request("POST", "/machines/m1/tags", json={"label": "it's a ?"})
            self.assertEqual((made.status, made.json()["tag_id"]), (200, 1), made.body)
            self.assertEqual(plugin.request("GET", "/machines/m1/tags").json(), [made.json()])
            self.assertEqual(plugin.request("DELETE", "/machines/m2/tags/1").status, 404)
            self.assertEqual(plugin.request("DELETE", "/machines/m1/tags/1").status, 204)
            self.assertEqual(plugin.request("GET", "/machines/m1/tags").json(), [])
            self.assertEqual(plugin.request("POST", "/machines/m1/tags", json={}).status, 422)
            self.assertEqual(plugin.request("GET", "/nothing").status, 404)
