"""OVS's JSON by the standard library's C scanner.

Law: it parses exactly what `ovs.json.Parser` parses, a stream of objects that come in pieces, and is put in its place for this
process.  The library's own parser calls a Python function for each character; the C one that it would rather use has to be
built against headers that distributions do not ship.  Half of the processor time of a plug went there.
"""

import json
import re

import ovs.json

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*(?P<end>"|\\?\Z)|[{}\[\]]', re.DOTALL)
"""A bracket, or a string: to its closing quote, or to the end of what has come."""


class Parser:
    """One object or array at a time; the interface is that of `ovs.json.Parser`.

    The end of the value is found by its brackets, once over each piece; then the scanner reads it, once.
    """

    def __init__(self, check_trailer: bool = False) -> None:  # noqa: FBT001, FBT002  the library's signature
        del check_trailer  # of use with whole texts only
        self._text = ""
        self._seen = 0
        self._depth = 0
        self._done = False
        self._value: object = None

    def feed(self, piece: str) -> int:
        """Take a piece; how many characters of it belong to the value."""
        before = len(self._text)
        self._text += piece
        for token in _TOKEN.finditer(self._text, self._seen):
            first = token[0][0]
            if first == '"':
                if token["end"] != '"':
                    self._seen = token.start()  # its end is still to come: look at it again then
                    return len(piece)
                continue
            self._depth += 1 if first in "{[" else -1
            if self._depth <= 0:
                self._finish(token.end())
                return token.end() - before
        self._seen = len(self._text)
        return len(piece)

    def _finish(self, end: int) -> None:
        self._done = True
        try:
            self._value = json.loads(self._text[:end])
        except ValueError as error:
            self._value = str(error)  # the library's way: what is no dictionary is its error

    def is_done(self) -> bool:
        """Whether the value is whole."""
        return self._done

    def finish(self) -> object:
        """The value, or what is wrong with it as a string."""
        return self._value


def install() -> None:
    """Have the OVS library use it."""
    ovs.json.Parser = Parser
