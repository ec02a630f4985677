"""The pages, asked over HTTP."""

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from podvif.daemon.health import Health
from podvif.errors import Refused
from podvif.node.journal import Journal
from podvif.node.metrics import Metrics
from podvif.node.readiness import Readiness
from tests.fakes.settings import settings
from tests.fakes.switch import FakeSwitch
from tests.unit.node.test_metrics import Seer


class Daemon:
    """The parts that the pages look at, on a port of their own."""

    def __init__(self, folder: Path) -> None:
        self.settings = settings(folder)
        self.switch = FakeSwitch(folder / "ovs")
        self.metrics = Metrics(CollectorRegistry())
        self.metrics.watch(Journal(self.settings.state_dir), self.switch, Seer())

    def pages(self, bind: str) -> Health:
        return Health("[node] metrics_bind", bind, self.metrics, Readiness(self.switch, self.settings))


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    """A daemon that is ready."""
    return Daemon(tmp_path)


@pytest.fixture
async def pages(daemon: Daemon) -> AsyncIterator[Health]:
    """Its pages."""
    made = daemon.pages("127.0.0.1:0")
    await made.start()
    yield made
    await made.stop()


async def get(pages: Health, path: str, accept: str = "") -> tuple[int, str, str]:
    """Status, content type and text of a page."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://{pages.address}{path}", headers={"Accept": accept} if accept else {}) as answer,
    ):
        return answer.status, answer.headers["Content-Type"], await answer.text()


async def test_health(pages: Health, daemon: Daemon) -> None:
    """/healthz is ok for as long as the daemon answers, whatever the switch does."""
    daemon.switch.lose_ovsdb()

    assert (await get(pages, "/healthz"))[::2] == (200, "ok\n")


async def test_readiness(pages: Health, daemon: Daemon) -> None:
    """/readyz says what STATUS says: ready, or 503 with the reason as text."""
    assert (await get(pages, "/readyz"))[::2] == (200, "ready\n")
    daemon.switch.lose_ovsdb()
    status, kind, text = await get(pages, "/readyz")

    assert status == 503
    assert kind.startswith("text/plain")
    assert text == f"{daemon.switch.trouble()}\n"


async def test_metrics(pages: Health, daemon: Daemon) -> None:
    """/metrics is in Prometheus's text form and has whether the node is ready, as of now."""

    async def ready() -> float:
        status, kind, text = await get(pages, "/metrics")
        assert status == 200
        assert kind.startswith("text/plain; version=")
        found = {family.name: family for family in text_string_to_metric_families(text)}
        return float(found["podvif_ready"].samples[0].value)

    assert await ready() == 1
    daemon.switch.lose_ovsdb()
    assert await ready() == 0


async def test_openmetrics(pages: Health) -> None:
    """Who asks for OpenMetrics gets that."""
    _, kind, text = await get(pages, "/metrics", "application/openmetrics-text; version=1.0.0")

    assert kind.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")


async def test_nothing_else(pages: Health) -> None:
    """There are no other pages."""
    assert (await get(pages, "/"))[0] == 404


async def test_address(daemon: Daemon) -> None:
    """The address is told with the port that was taken."""
    pages = daemon.pages("localhost:0")
    await pages.start()
    host, _, port = pages.address.rpartition(":")

    assert host in {"127.0.0.1", "[::1]"}
    assert int(port) > 0
    await pages.stop()


async def test_taken(daemon: Daemon) -> None:
    """A port that somebody listens on is refused, with the option's name."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        pages = daemon.pages(f"127.0.0.1:{other.getsockname()[1]}")
        with pytest.raises(Refused, match=r"metrics_bind = 127\.0\.0\.1:\d+ .* somebody listens there already"):
            await pages.start()


async def test_not_ours(daemon: Daemon) -> None:
    """An address that is none of this machine's is refused, with the option's name."""
    with pytest.raises(Refused, match=r"metrics_bind = 192\.0\.2\.1:9655"):
        await daemon.pages("192.0.2.1:9655").start()
