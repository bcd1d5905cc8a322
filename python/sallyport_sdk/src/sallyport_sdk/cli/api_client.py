"""AttestationClient: the server's REST interface, for commands."""

from __future__ import annotations

import http.client
import json as _json
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, urlencode, urlsplit

from ._proof import proof
from .handover import Handover, NotHandedOver, handover

MAX_ANSWER = 16 << 20
TIMEOUT = 30.0  # seconds


class ApiError(Exception):
    """The server refused, or did not answer. The text says what to do next."""

    def __init__(self, detail: str, status: int = 0, kind: str = "unavailable") -> None:
        super().__init__(detail)
        self.status, self.kind = status, kind


class AttestationClient:
    """Calls the server. Without arguments it acts with the session that was handed over.

    That session goes to the server that it is for, and nowhere else, with a proof for each
    request; another token is sent as it is. Redirects are not followed.
    """

    def __init__(self, base_url: str | None = None, token: str | None = None) -> None:
        try:
            self._handed: Handover = handover()
        except NotHandedOver:
            self._handed = Handover()
        self._base = _base(base_url or self._handed.url)
        self._token = token

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """The answer to GET, read as JSON; None if it is empty."""
        return self.request("GET", path, params=params)

    def post(self, path: str, json: Any = None) -> Any:
        """The answer to POST."""
        return self.request("POST", path, json=json)

    def put(self, path: str, json: Any = None) -> Any:
        """The answer to PUT."""
        return self.request("PUT", path, json=json)

    def delete(self, path: str) -> Any:
        """The answer to DELETE."""
        return self.request("DELETE", path)

    def request(self, method: str, path: str, *, params: Mapping[str, Any] | None = None, json: Any = None) -> Any:
        """One request. Raises ApiError."""
        if not path.startswith("/"):
            raise ValueError("a path begins with /")
        query = urlencode(params, doseq=True) if params else ""
        target = self._base.path.rstrip("/") + path
        headers = {"Accept": "application/json", **self._authority(method, target.partition("?")[0])}
        body = None
        if json is not None:
            body, headers["Content-Type"] = _json.dumps(json).encode(), "application/json"
        if query:
            target += ("&" if "?" in target else "?") + query
        connection = self._connect()
        try:
            connection.request(method, target, body, headers)
            answer = connection.getresponse()
            data = answer.read(MAX_ANSWER + 1)
        except (OSError, http.client.HTTPException) as problem:
            raise ApiError(f"{self._base.netloc} does not answer: {problem}") from problem
        finally:
            connection.close()
        return _read(answer.status, data)

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._base.hostname or "", self._base.port
        if self._base.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=TIMEOUT)
        ours = self._handed.ca and _same(self._base, self._handed.url)
        return http.client.HTTPSConnection(
            host, port, timeout=TIMEOUT, context=ssl.create_default_context(cadata=self._handed.ca if ours else None)
        )

    def _authority(self, method: str, target: str) -> dict[str, str]:
        session = self._handed.session
        if session and self._token in (None, session.token):
            if not _same(self._base, self._handed.url):
                if self._token is None:
                    return {}
                raise ApiError(f"the session is for {self._handed.url}, and goes nowhere else", kind="denied")
            url = f"{self._base.scheme}://{self._base.netloc}{target}"
            return {"Authorization": f"DPoP {session.token}", "DPoP": proof(session.key, method, url, session.token)}
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}


def _base(url: str) -> SplitResult:
    base = urlsplit(url)
    if base.scheme not in ("https", "http") or not base.hostname:
        raise ApiError("there is no server: log in with sallyport auth login, or give --url", kind="invalid")
    return base


def _same(base: SplitResult, url: str) -> bool:
    other = urlsplit(url)
    return (base.scheme, base.hostname, base.port) == (other.scheme, other.hostname, other.port)


def _read(status: int, data: bytes) -> Any:
    if len(data) > MAX_ANSWER:
        raise ApiError("the server's answer is too large", status, "internal")
    try:
        value = _json.loads(data) if data.strip() else None
    except (ValueError, RecursionError):
        value = None
        if 200 <= status < 300:
            raise ApiError("the server's answer is no JSON", status, "internal") from None
    if 200 <= status < 300:
        return value
    about = value if isinstance(value, dict) else {}
    detail = about.get("detail") or about.get("error") or about.get("title") or f"the server answers {status}"
    raise ApiError(str(detail), status, _KINDS.get(status, "internal" if status >= 500 else "invalid"))


_KINDS = {401: "unauthenticated", 403: "denied", 404: "not_found", 409: "conflict", 429: "exhausted", 503: "unavailable"}
