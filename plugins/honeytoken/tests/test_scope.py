import unittest

from honeytoken.scope import Refused, narrow, validate

GOOD = {"name": "backup-key", "purpose": "alarm on the build server"}


class Scope(unittest.TestCase):
    def test_validate(self):
        validate("honeytoken", GOOD)
        validate("honeytoken", {**GOOD, "owner": "secops"})
        for kind, params in (
            ("other", GOOD),
            ("honeytoken", {}),
            ("honeytoken", {"name": "x"}),
            ("honeytoken", {"name": "x", "purpose": " \t"}),
            ("honeytoken", {"name": 7.0, "purpose": "x"}),
            ("honeytoken", {"name": "x" * 257, "purpose": "x"}),
        ):
            with self.subTest(params), self.assertRaises(Refused):
                validate(kind, params)

    def test_narrow(self):
        self.assertEqual(narrow(GOOD, 600, {}, 60), (GOOD, 60))
        self.assertEqual(narrow(GOOD, 60, {"owner": "secops"}, 600), ({**GOOD, "owner": "secops"}, 60))
        self.assertEqual(narrow(GOOD, 60, {"name": ["backup-key", "x"]}, 600), (GOOD, 60))
        for limits in ({"name": "other"}, {"purpose": []}):
            with self.subTest(limits), self.assertRaises(Refused):
                narrow(GOOD, 60, limits, 60)
