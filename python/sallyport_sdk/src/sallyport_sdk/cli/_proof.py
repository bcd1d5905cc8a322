"""Proofs of possession (RFC 9449) by the key of this invocation.

Ed25519 comes from the library cryptography if it is packed, else from the few lines of
RFC 8032 below. They do not run in constant time; nobody who could measure that is kept
out by it: the key is made for one invocation, is in the memory of this very process, and
dies with its session in minutes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from collections.abc import Mapping

_P = 2**255 - 19
_Q = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, _P - 2, _P) % _P
_BASE_Y = 4 * pow(5, _P - 2, _P) % _P
_BASE_X = 15112221349535400772501151409588531511454012693041857206046113283949847762202
_Point = tuple[int, int, int, int]
_BASE: _Point = (_BASE_X, _BASE_Y, 1, _BASE_X * _BASE_Y % _P)


def proof(key: Mapping[str, str], method: str, url: str, token: str, now: float | None = None) -> str:
    """The DPoP header for one request; url is without query."""
    header = {"alg": "EdDSA", "jwk": {"crv": "Ed25519", "kty": "OKP", "x": key["x"]}, "typ": "dpop+jwt"}
    claims = {
        "jti": encode(os.urandom(16)),
        "htm": method,
        "htu": url,
        "iat": int(time.time() if now is None else now),
        "ath": encode(hashlib.sha256(token.encode()).digest()),
    }
    text = ".".join(encode(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims))
    return f"{text}.{encode(sign(decode(key['d']), text.encode()))}"


def encode(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """The bytes of base64url without padding."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def sign(seed: bytes, message: bytes) -> bytes:
    """An Ed25519 signature."""
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError:
        return sign_plainly(seed, message)
    signature: bytes = Ed25519PrivateKey.from_private_bytes(seed).sign(message)
    return signature


def sign_plainly(seed: bytes, message: bytes) -> bytes:
    """An Ed25519 signature by the standard library alone (RFC 8032, 5.1.6)."""
    h = hashlib.sha512(seed).digest()
    scalar = int.from_bytes(h[:32], "little") & ((1 << 254) - 8) | (1 << 254)
    public = _compress(_times(scalar))
    r = int.from_bytes(hashlib.sha512(h[32:] + message).digest(), "little") % _Q
    point = _compress(_times(r))
    k = int.from_bytes(hashlib.sha512(point + public + message).digest(), "little") % _Q
    return point + ((r + k * scalar) % _Q).to_bytes(32, "little")


def _times(scalar: int) -> _Point:
    out: _Point = (0, 1, 1, 0)
    power = _BASE
    while scalar:
        if scalar & 1:
            out = _add(out, power)
        power = _add(power, power)
        scalar >>= 1
    return out


def _add(a: _Point, b: _Point) -> _Point:
    s, t = (a[1] - a[0]) * (b[1] - b[0]) % _P, (a[1] + a[0]) * (b[1] + b[0]) % _P
    u, v = 2 * a[3] * b[3] * _D % _P, 2 * a[2] * b[2] % _P
    e, f, g, h = t - s, v - u, v + u, t + s
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _compress(point: _Point) -> bytes:
    inverse = pow(point[2], _P - 2, _P)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")
