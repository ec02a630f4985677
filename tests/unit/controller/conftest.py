"""The controller's parts over behaving fakes, on a loop whose time passes by itself."""

from collections.abc import AsyncIterator, Callable, Mapping

import pytest

from tests.fakes.controller import Stage, staged
from tests.fakes.loop import QuickLoop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], QuickLoop]]:
    """Time passes when nobody has anything to do."""
    return {"quick": QuickLoop}


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """A cluster without a controller."""
    async with staged() as made:
        yield made
