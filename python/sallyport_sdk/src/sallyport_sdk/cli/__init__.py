"""Commands for the sallyport command line: CliPlugin, and what was handed to this process.

It uses the standard library alone; click comes with the extra cli, and what does not
register commands works without it. docs/plugins/cli.md has the contract.
"""

from __future__ import annotations

from ..extensions import CliPlugin
from .api_client import ApiError, AttestationClient
from .auth import get_token
from .handover import Handover, handover

__all__ = ["ApiError", "AttestationClient", "CliPlugin", "Handover", "get_token", "handover"]
