"""OVSDB's values in plain Python."""

from typing import Any

import pytest

from podvif.lab.ovs_client import plain


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (7, 7),
        ("x", "x"),
        (["set", []], None),
        (["set", [1, 2]], [1, 2]),
        (["map", []], {}),
        (["map", [["a", "b"], ["c", ["set", []]]]], {"a": "b", "c": None}),
        (["uuid", "9c9cc8f5"], "9c9cc8f5"),
        (["set", [["uuid", "a"], ["uuid", "b"]]], ["a", "b"]),
    ],
)
def test_plain(value: Any, found: Any) -> None:
    """Sets, maps and UUIDs of RFC 7047 are lists, dicts and strings; an empty set is None."""
    assert plain(value) == found
