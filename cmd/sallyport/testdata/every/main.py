"""A plugin of the stories with every role of a server. It does, and fails, as it is told."""

import json
import secrets
import threading

from sallyport_sdk import (
    Check, Denied, Device, Event, Evidence, Extension, Invalid, Issued, Judgement, Notification, Notifier, Refused, Request, Result, Revocation,
    Revoker, Vender, Verifier, serve,
)  # fmt: skip

held = threading.Event()


def fail(where: str) -> None:
    raise RuntimeError(f"canary in {where}")


class Tokens(Vender, Revoker):
    kinds = ["every-token"]

    def issue(self, request: Request) -> Issued:
        do = request.params.get("do")
        if do == "fail":
            fail("issue")
        if do == "hold":
            print("held")
            held.wait()
        return request.grant("every-" + secrets.token_hex(16), handle=f"{do or 'plain'}-{secrets.token_hex(4)}")

    def revoke(self, revocation: Revocation) -> None:
        if revocation.handle.startswith("stuck"):
            fail("revoke")
        print("took back", revocation.handle.partition("-")[0])


class People(Notifier):
    async def notify(self, notification: Notification) -> None:
        key = f"told/{notification.id}"
        if (await self.host.asynchronous.kv_get(key))[1] == 0:
            await self.host.asynchronous.kv_put(key, b"")
            fail("notify")  # once; the host tells it again
        print("told of", notification.kind)


class Judge(Verifier):
    def judge(self, evidence: Evidence) -> Judgement:
        shown = json.loads(evidence.data)
        if shown["bound"] == "xyz":
            fail("judge")
        bound = bytes.fromhex(shown["bound"])
        checks = [Check("binding", Result.PASS if bound == evidence.report_data else Result.FAIL, reason="it is bound to another challenge")]
        return Judgement(Device.CPU, {"firmware": shown["firmware"]}, bound, checks)


class Desk(Extension):
    def start(self) -> None:
        self.host.execute(("INSERT INTO extension_every_heard VALUES ('start', 1) ON CONFLICT (id) DO UPDATE SET times = times + 1",))

    def hook(self, event: Event) -> None:
        again = "INSERT INTO extension_every_heard VALUES ($1, 1) ON CONFLICT (id) DO UPDATE SET times = times + 1"
        self.host.execute((again, event.type))
        times = self.host.query("SELECT times FROM extension_every_heard WHERE id = $1", event.type).rows[0][0]
        if event.type == "subject.locked":
            print("hanging")
            threading.Event().wait()
        if times == 1:
            fail("hook")

    def gate(self, gate: str, question: dict) -> None:
        do = question["request"].get("params", {}).get("do")
        if do == "closed":
            fail("gate")
        if do == "denied":
            raise Denied("the desk is closed")

    async def app(self, scope, receive, send) -> None:
        body = b""
        while (part := await receive())["type"] == "http.request":
            body += part["body"]
            if not part["more_body"]:
                break
        try:
            answer = await getattr(self, scope["path"].rpartition("/")[2])(body.decode())
        except Refused as no:
            answer = {"refused": f"{type(no).__name__}: {no}"}
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    async def fail(self, _: str) -> None:
        fail("route")

    async def free(self, _: str) -> None:
        held.set()

    async def heard(self, _: str) -> dict:
        return dict((await self.host.asynchronous.query("SELECT id, times FROM extension_every_heard")).rows)

    async def sql(self, statement: str) -> list:
        """Runs whatever it is given, both ways."""
        if statement.startswith("SELECT"):
            return (await self.host.asynchronous.query(statement)).rows
        return await self.host.asynchronous.execute((statement,))

    async def services(self, _: str) -> list:
        host = self.host.asynchronous
        await host.log("a line", level="warn", door="7")
        await host.emit("seen", where="door 7")
        first = await host.kv_put("cursor", b"7")
        try:
            await host.kv_put("cursor", b"8", if_version=first + 1)
        except Refused as no:
            return [type(no).__name__, (await host.kv_get("cursor"))[0].decode(), (await host.kv_keys("cur"))[0]]

    async def vend(self, kind: str) -> list:
        got = await self.host.asynchronous.vend(kind.strip(), {}, 60)
        return [got.scope.kind, got.value.decode()[:7], bool(got.grant), got.expires_at > 0]

    async def leak(self, value: str) -> int:
        if not value:
            raise Invalid("say what has leaked")
        return (await self.host.asynchronous.report_leak(value=value.strip().encode(), source="desk"))[1]


if __name__ == "__main__":
    serve(Tokens(), People(), Judge(), Desk(), name="every", version="1.0.0")
