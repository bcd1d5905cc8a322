"""The keys that a broker signs contexts with."""

from __future__ import annotations

import base64
import json
import os
import ssl
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

_MAX_KEY_SET = 256 << 10
_TIMEOUT = 10.0

# Gives the broker's key set for contexts (a JWK set). It is called in a thread when the
# plugin starts to need it, when a key is not known, and now and again.
Keys = Callable[[], bytes]


def key_file(path: str | os.PathLike[str]) -> Keys:
    """Reads a broker's key set from a file, as ``sallyport kbs keys --contexts`` prints it."""

    def read() -> bytes:
        with open(path, "rb") as f:
            return f.read(_MAX_KEY_SET + 1)

    return read


def key_url(url: str, ca: str | os.PathLike[str] | None = None) -> Keys:
    """Fetches a broker's key set from an https URL, whose path is
    ``/.well-known/sallyport-context-jwks.json``. ``ca`` is a PEM file with the authorities
    that are believed; the system's without."""
    if urllib.parse.urlsplit(url).scheme != "https":
        raise ValueError(f"{url} is no https URL: whoever is on the way could put a key of his own there")

    def read() -> bytes:
        trust = ssl.create_default_context(cafile=None if ca is None else os.fspath(ca))
        opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=trust), _NoRedirect)
        with opener.open(url, timeout=_TIMEOUT) as answer:
            if answer.status != 200:
                raise OSError(f"the broker answers {answer.status}")
            text: bytes = answer.read(_MAX_KEY_SET + 1)
            return text

    return read


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


class PublicKey:
    """An Ed25519 key."""

    def __init__(self, raw: bytes) -> None:
        try:
            from cryptography.exceptions import InvalidSignature
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        except ImportError as e:
            raise RuntimeError("contexts need cryptography: install kbs-plugin-sdk[contexts]") from e
        self._key, self._wrong = Ed25519PublicKey.from_public_bytes(raw), InvalidSignature

    def verifies(self, signature: bytes, message: bytes) -> bool:
        try:
            self._key.verify(signature, message)
        except self._wrong:
            return False
        return True


def read_keys(text: bytes) -> dict[str, PublicKey]:
    """The keys for contexts of a JWK set, by their number."""
    if len(text) > _MAX_KEY_SET:
        raise ValueError("the key set is too large")
    try:
        entries = json.loads(text)["keys"]
    except (ValueError, RecursionError, KeyError, TypeError):
        raise ValueError("read the key set: it is no JWK set") from None
    found = {}
    for k in entries if isinstance(entries, list) else []:
        if not isinstance(k, dict) or (k.get("kty"), k.get("crv")) != ("OKP", "Ed25519") or "d" in k:
            continue
        kid, x = k.get("kid"), k.get("x")
        if isinstance(kid, str) and kid and isinstance(x, str) and len(x) == 43:
            try:
                found[kid] = PublicKey(base64.b64decode(x + "=", altchars=b"-_", validate=True))
            except ValueError:
                continue
    if not found:
        raise ValueError("the key set has no key for contexts: take that of /.well-known/sallyport-context-jwks.json")
    return found
