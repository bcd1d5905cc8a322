"""get_session: SQLModel's session over the extension's own database at the host.

The host commits every statement as it comes, so that a rollback undoes nothing. Where
several statements must hold together, use host.execute, which runs them in one
transaction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import Invalid, Refused
from ..host import Host, Rows

_host: Host | None = None
_engine: Any = None


def use(host: Host) -> None:
    """Says whose database it is; the SDK does."""
    global _host, _engine
    _host, _engine = host, None


def get_session() -> Iterator[Any]:
    """A session, for FastAPI's Depends."""
    from sqlmodel import Session

    with Session(get_engine()) as session:
        yield session


def get_engine() -> Any:
    """SQLAlchemy's engine."""
    global _engine
    if _engine is None:
        from sqlalchemy import create_engine
        from sqlalchemy.dialects import registry
        from sqlalchemy.pool import NullPool

        registry.register("sallyport", f"{__package__}._dialect", "Dialect")
        _engine = create_engine("sallyport://", poolclass=NullPool)
    return _engine


class Error(Exception):
    """An error of the database (PEP 249)."""


class IntegrityError(Error):
    """A constraint does not hold."""


class Module:
    """What PEP 249 calls the module."""

    apilevel, threadsafety, paramstyle = "2.0", 1, "qmark"
    sqlite_version_info = sqlite_version = (3, 45, 0)
    Error = DatabaseError = OperationalError = ProgrammingError = InterfaceError = NotSupportedError = Error
    InternalError = DataError = Error
    IntegrityError = IntegrityError
    Binary = bytes

    @staticmethod
    def connect() -> _Connection:
        return _Connection()


class _Connection:
    """A connection of PEP 249."""

    def cursor(self) -> _Cursor:
        return _Cursor()

    def commit(self) -> None:
        """Is done already."""

    def rollback(self) -> None:
        """Undoes nothing."""

    def close(self) -> None:
        """Has nothing to close."""


class _Cursor:
    """A cursor of PEP 249: all rows come at once."""

    arraysize = 1

    def __init__(self) -> None:
        self.description: list[tuple[Any, ...]] | None = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self._rows: list[tuple[Any, ...]] = []

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> _Cursor:
        if _host is None:
            raise Error("the database is there when the extension has started")
        sql = _numbered(sql)
        try:
            if _reads(sql):
                found = _host.query(sql, *parameters)
                if found.more:
                    raise Error("the answer has more rows than the host gives at once: use LIMIT")
                self._take(found)
            else:
                self.rowcount = _host.execute((sql, *parameters))[0]
        except Refused as problem:
            kind = IntegrityError if isinstance(problem, Invalid) and "constraint" in str(problem).lower() else Error
            raise kind(str(problem)) from problem
        return self

    def executemany(self, sql: str, every: Sequence[Sequence[Any]]) -> _Cursor:
        for parameters in every:
            self.execute(sql, parameters)
        return self

    def _take(self, found: Rows) -> None:
        self.description = [(c, None, None, None, None, None, None) for c in found.columns]
        self._rows = list(found.rows)
        self.rowcount = len(self._rows)

    def fetchone(self) -> tuple[Any, ...] | None:
        return self._rows.pop(0) if self._rows else None

    def fetchall(self) -> list[tuple[Any, ...]]:
        rows, self._rows = self._rows, []
        return rows

    def fetchmany(self, size: int = 1) -> list[tuple[Any, ...]]:
        rows, self._rows = self._rows[:size], self._rows[size:]
        return rows

    def close(self) -> None:
        self._rows = []


def _reads(sql: str) -> bool:
    first = sql.lstrip().split(None, 1)[0].upper() if sql.strip() else ""
    return first in ("SELECT", "WITH", "VALUES") or "RETURNING" in sql.upper()


def _numbered(sql: str) -> str:
    """Question marks outside of texts and names become $1, $2, ..."""
    out, number, quote = [], 0, ""
    for c in sql:
        if quote:
            quote = "" if c == quote else quote
        elif c in "'\"`":
            quote = c
        elif c == "?":
            number += 1
            out.append(f"${number}")
            continue
        out.append(c)
    return "".join(out)
