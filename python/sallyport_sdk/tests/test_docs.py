"""The guide: what it shows runs."""

from __future__ import annotations

import re
import unittest
from pathlib import Path
from typing import Any

GUIDE = Path(__file__).parents[3] / "docs" / "plugins" / "python.md"


class Guide(unittest.TestCase):
    def test_the_first_plugin_runs_and_is_short(self) -> None:
        blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
        hello = blocks[0]
        self.assertLessEqual(len(hello.splitlines()), 20)
        tests = next(b for b in blocks if "Harness" in b)
        names: dict[str, Any] = {"serve": None}
        exec(hello.replace("\nserve(", "\nrunning = dict(", 1).replace("Greeter(), ", "plugin=Greeter(), "), names)
        self.assertEqual((names["running"]["name"], names["running"]["version"]), ("hello", "1.0.0"))
        exec(tests, names)
        names["plugin"].close()
