"""OVS's JSON by the standard library's scanner."""

import itertools
import json
from typing import Any

import ovs.json
from hypothesis import assume, given
from hypothesis import strategies as st

from podvif.ovs.fastjson import Parser

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
MESSAGES = st.dictionaries(st.text(max_size=4), VALUES, max_size=4)


def received(text: str, cuts: list[int]) -> list[Any]:
    """What a connection makes of a stream that comes in pieces, as `ovs.jsonrpc.Connection.recv` does it."""
    found, parser = [], Parser()
    bounds = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    for start, end in itertools.pairwise(bounds):
        piece = text[start:end]
        while piece:
            piece = piece[parser.feed(piece) :]
            if parser.is_done():
                found.append(parser.finish())
                parser = Parser()
    return found


@given(st.lists(MESSAGES, min_size=1, max_size=4), st.lists(st.integers(min_value=0), max_size=8))
def test_any_stream(messages: list[dict[str, Any]], cuts: list[int]) -> None:
    """However a stream of objects is cut, each comes out whole and in order."""
    assert received("".join(map(json.dumps, messages)), cuts) == messages


@given(MESSAGES)
def test_like_the_library(message: dict[str, Any]) -> None:
    """It parses to what the library's parser parses to; that one refuses null bytes, which OVSDB does not send."""
    assume("\\u0000" not in json.dumps(message))
    text = json.dumps(message)

    assert received(text, []) == [ovs.json.from_string(text)]


@given(st.lists(MESSAGES, min_size=2, max_size=5))
def test_several_at_once(messages: list[dict[str, Any]]) -> None:
    """Several objects in one piece come out one by one."""
    assert received("".join(map(json.dumps, messages)), []) == messages


def test_no_json() -> None:
    """What has the brackets of an object and is none comes out as a string, which the library takes for an error."""
    (found,) = received("{nonsense}", [])

    assert isinstance(found, str)


def test_brackets_in_strings() -> None:
    """Brackets, quotes and backslashes in strings are no brackets, wherever the stream is cut."""
    messages = [{"error": "[" * 5000}, {"error": '}\\"' * 3000}, {"a": "{"}]
    text = "".join(map(json.dumps, messages))

    assert received(text, list(range(0, len(text), 4096))) == messages
