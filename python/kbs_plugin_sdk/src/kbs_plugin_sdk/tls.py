"""What a server shows and demands."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import grpc


@dataclass(frozen=True)
class TlsConfig:
    """Make one with :meth:`server_tls`."""

    cert: str
    key: str
    client_ca: str | None = None

    @classmethod
    def server_tls(
        cls, cert: str | os.PathLike[str], key: str | os.PathLike[str], client_ca: str | os.PathLike[str] | None = None
    ) -> TlsConfig:
        """PEM files: the certificate, which must name the host by which brokers call, and
        its key. With ``client_ca`` callers must show a certificate of one of these
        authorities; Trustee shows none, Sallyport does if it is configured so."""
        return cls(os.fspath(cert), os.fspath(key), None if client_ca is None else os.fspath(client_ca))

    def credentials(self) -> Any:
        """gRPC's form of it. The files are read now."""
        ca = None if self.client_ca is None else _read(self.client_ca)
        return grpc.ssl_server_credentials(
            [(_read(self.key), _read(self.cert))], root_certificates=ca, require_client_auth=ca is not None
        )


def _read(path: str) -> bytes:
    with open(path, "rb") as f:
        return f.read()
