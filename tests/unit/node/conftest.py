"""Daemons for each test that asks for them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.node import MakeNode, Node


@pytest.fixture
def make_node(tmp_path: Path) -> Iterator[MakeNode]:
    """Makes daemons of real parts around a fake switch and a fake IPAM, each in a folder of its own."""
    made: list[Node] = []

    def make(**options: Any) -> Node:
        made.append(Node(tmp_path / str(len(made)), **options))
        return made[-1]

    yield make
    for node in made:
        node.switch.kill_vswitchd()


@pytest.fixture
def node(make_node: MakeNode) -> Node:
    """A daemon with the default settings."""
    return make_node()
