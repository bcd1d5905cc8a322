"""Scopes: what narrowing may never do, and what is no JSON object."""

import unittest

from sallyport_sdk.errors import Denied, Invalid
from sallyport_sdk.pb import sallyport_pb2 as pb
from sallyport_sdk.scopes import Bounds, Request, Scope, decode_object, read_scope


class Narrow(unittest.TestCase):
    def test_within(self) -> None:
        for asked, limits, want in (
            ({"a": "x"}, {}, {"a": "x"}),
            ({"a": "x"}, {"a": "x"}, {"a": "x"}),
            ({"a": "x"}, {"a": ["x", "y"]}, {"a": "x"}),
            ({"a": ["x", "z"]}, {"a": ["x", "y"]}, {"a": ["x"]}),
            ({"a": ["x", "z"]}, {"a": "x"}, {"a": ["x"]}),
            ({}, {"a": "x"}, {"a": "x"}),  # policy fills in
        ):
            with self.subTest(asked=asked, limits=limits):
                got = Request(Scope("k", asked, 60), Bounds("k", limits, 30)).narrowed()
                self.assertEqual((dict(got.params), got.ttl), (want, 30))

    def test_nothing_is_left(self) -> None:
        for asked, limit in (("x", "y"), ("x", ["y"]), (["x"], ["y"]), ([], ["y"]), (["x"], "y"), ("x", [])):
            with self.subTest(asked=asked, limit=limit), self.assertRaises(Denied):
                Request(Scope("k", {"a": asked}, 60), Bounds("k", {"a": limit}, 30)).narrowed()


class Objects(unittest.TestCase):
    def test_strict(self) -> None:
        self.assertEqual(decode_object(b""), {})
        self.assertEqual(decode_object(b'{"a": 7}'), {"a": 7.0})
        for bad in (b"[]", b"7", b"{", b'{"a":1,"a":2}', b'{"a":NaN}', b"\xff", b"[" * 100000):
            with self.subTest(bad[:20]), self.assertRaises(Invalid):
                decode_object(bad)

    def test_the_host_alone_says_host(self) -> None:
        scope, host = read_scope(pb.Scope(kind="k", params=b'{"a": "x", "host.serial": "7"}', ttl_seconds=3))
        self.assertEqual((scope, host), (Scope("k", {"a": "x"}, 3), {"serial": "7"}))
        with self.assertRaises(Invalid):
            read_scope(pb.Scope(params=b'{"host.serial": 7}'))
