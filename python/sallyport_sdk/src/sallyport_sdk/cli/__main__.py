"""What the command line starts: python3 -m sallyport_sdk.cli COMMAND ARGUMENT..."""

from __future__ import annotations

import importlib
import sys
from typing import NoReturn

from .api_client import ApiError
from .handover import Handover, NotHandedOver, handover

# The exit codes of the command line (docs/cli.md).
EXITS = {"invalid": 2, "not_found": 3, "denied": 4, "unauthenticated": 5, "conflict": 6, "unavailable": 7, "exhausted": 7}


def main() -> NoReturn:
    """Registers the package's commands and runs the one that was typed."""
    try:
        handed = handover()
    except NotHandedOver as problem:
        sys.exit(str(problem))
    try:
        import click
    except ImportError:
        sys.exit(f"the package {handed.plugin} lacks click: its author locks it in requirements.lock")
    root = click.Group("sallyport")
    for name, reference in sorted(handed.entry_points.items()):
        try:
            _register(root, reference)
        except Exception as problem:  # one that is broken harms no other
            print(f"warning: {name} of {handed.plugin} does not load: {type(problem).__name__}: {problem}", file=sys.stderr)
    sys.exit(_invoke(root, handed))


def _register(root: object, reference: str) -> None:
    from ..extensions import CliPlugin

    module, _, attribute = reference.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    plugin = found() if isinstance(found, type) else found
    if not isinstance(plugin, CliPlugin):
        raise TypeError(f"{reference} is no CliPlugin")
    plugin.register(root)  # type: ignore[arg-type]


def _invoke(root: object, handed: Handover) -> int:
    context = {"api_url": handed.url, "output": handed.output}
    try:
        root.main(sys.argv[1:], prog_name="sallyport", obj=context)  # type: ignore[attr-defined]
    except ApiError as problem:
        print(problem, file=sys.stderr)
        return EXITS.get(problem.kind, 1)
    return 0


if __name__ == "__main__":
    main()
