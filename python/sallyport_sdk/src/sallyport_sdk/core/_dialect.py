"""SQLAlchemy's dialect for the database at the host."""

from __future__ import annotations

from typing import Any

from sqlalchemy.dialects.sqlite.base import SQLiteDialect

from .database import Module


class Dialect(SQLiteDialect):
    """SQLite, but for the questions about connection and schema, which the host answers to nobody."""

    driver = "sallyport"
    supports_statement_cache = True
    insert_returning = update_returning = delete_returning = True
    favor_returning_over_lastrowid = True

    @classmethod
    def import_dbapi(cls) -> Any:
        """The module of PEP 249."""
        return Module

    def create_connect_args(self, url: Any) -> Any:
        """There is nothing to say: the host knows whose database it is."""
        return (), {}

    def initialize(self, connection: Any) -> None:
        """What SQLAlchemy would ask the first connection."""
        self.server_version_info = Module.sqlite_version_info
        self.default_schema_name = "main"
        self.default_isolation_level = None
