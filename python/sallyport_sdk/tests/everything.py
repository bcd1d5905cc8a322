"""A plugin with every role of sallyport.plugin.v1, which the tests call and start."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from typing import Any

from sallyport_sdk import (
    Check,
    Denied,
    Device,
    Event,
    Evidence,
    Extension,
    Invalid,
    Issued,
    Judgement,
    Notification,
    Notifier,
    Request,
    Result,
    Revocation,
    Revoker,
    Scope,
    Unimplemented,
    Vender,
    Verifier,
    serve,
)

SECRET = "hunter2-hunter2"


class Token(Vender, Revoker):
    """Two roles in one object."""

    kinds = ["token"]

    def __init__(self) -> None:
        self.config: Mapping[str, Any] = {}
        self.held = threading.Event()
        self.gone: list[str] = []

    def configure(self, config: Mapping[str, Any]) -> None:
        if config.get("bad"):
            raise Invalid("bad must not be there")
        if config.get("worse"):
            raise RuntimeError(f"cannot use {config['password']}")
        self.config = config

    def vet(self, scope: Scope) -> None:
        if "audience" not in scope.params:
            raise Invalid("audience must say for whom the token is")

    def issue(self, request: Request) -> Issued:
        what = request.params.get("do")
        if what == "fail":
            raise RuntimeError(f"the provider says {SECRET}")
        if what == "hold":
            self.held.wait(30)
        if what == "sleep":
            time.sleep(30)
        if what == "print":
            print("printed")
        if what == "kv":
            version = self.host.kv_put("k", b"v")
            return request.grant(f"{self.host.kv_get('k')[0].decode()}{version}")
        return request.grant(f"token for {request.params.get('audience')}", handle="h1", expires_at=int(time.time()) + 60)

    def revoke(self, revocation: Revocation) -> None:
        if revocation.handle == "manual":
            raise Unimplemented("a person must do it")
        if revocation.handle == "fail":
            raise RuntimeError(SECRET)
        self.gone.append(revocation.handle)


class Pager(Notifier):
    """An async function."""

    async def notify(self, notification: Notification) -> None:
        await asyncio.sleep(0)
        if notification.kind == "fail":
            raise RuntimeError(SECRET)
        await self.host.asynchronous.log(notification.title, level="warn", id=notification.id)


class Judge(Verifier):
    """Believes evidence that is its own report data."""

    def judge(self, evidence: Evidence) -> Judgement:
        if evidence.data == b"fail":
            raise RuntimeError(SECRET)
        if evidence.data != evidence.report_data:
            raise Denied("the evidence is not bound to the report data")
        return Judgement(Device.CPU, {"svn": 7}, evidence.data, [Check("binding", Result.PASS)])


class Watch(Extension):
    """Routes, hooks and gates without a framework."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.started = 0

    def start(self) -> None:
        self.started += 1

    def stop(self) -> None:
        raise RuntimeError(SECRET)

    def hook(self, event: Event) -> None:
        if event.type == "fail":
            raise RuntimeError(SECRET)
        self.events.append(event)

    async def gate(self, gate: str, question: Mapping[str, Any]) -> None:
        if question.get("fail"):
            raise RuntimeError(SECRET)
        if gate == "release" and question.get("kind") == "root":
            raise Denied("nobody gets root")

    async def app(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        body = b""
        while True:
            part = await receive()
            body += part["body"]
            if not part["more_body"]:
                break
        path = scope["path"]
        if path == "/fail":
            raise RuntimeError(SECRET)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"X-Path", scope["raw_path"])]})
        if path == "/break":
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
            raise RuntimeError(SECRET)
        if path == "/who":
            body = f"{scope['state']['principal'].name} {scope['query_string'].decode()}".encode()
        if path == "/twice":
            body += body
        await send({"type": "http.response.body", "body": body})


def all_roles() -> tuple[Token, Pager, Judge, Watch]:
    return Token(), Pager(), Judge(), Watch()


if __name__ == "__main__":
    print("printed before the start is log")
    serve(*all_roles(), name="everything", version="1.0.0")
