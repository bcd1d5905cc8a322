"""The base classes of extensions and CLI plugins, under the names of the attestation platform.

Importing them needs neither FastAPI nor click.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import click


class CliPlugin(ABC):
    """Adds commands to the command line (entry-point group attestation_cli_plugins)."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Kebab-case, and the key of the entry point."""

    @property
    @abstractmethod
    def version(self) -> str:
        """The version, as 1.0.0."""

    @property
    def description(self) -> str:
        """One line, for lists."""
        return ""

    @abstractmethod
    def register(self, cli: click.Group) -> None:
        """Attaches commands, and does nothing else: it is called before it is known which one runs."""


class AttestationExtension(ABC):
    """Adds routes, tables and hooks to the server (entry-point group attestation_extensions)."""

    @property
    @abstractmethod
    def name(self) -> str:
        """snake_case and unique; the package's name has hyphens in place of its underscores."""

    @property
    @abstractmethod
    def version(self) -> str:
        """The version, as 1.0.0."""

    @property
    @abstractmethod
    def description(self) -> str:
        """One line."""

    @abstractmethod
    def get_router(self) -> Any:
        """FastAPI's APIRouter with the routes, or None."""

    def get_models(self) -> list[type]:
        """Every SQLModel class that is a table. The migrations of the package make them."""
        return []

    async def on_startup(self) -> None:
        """Called once per process, after the tables are there. Repeating it must do no harm."""

    async def on_shutdown(self) -> None:
        """Called before the process ends."""
