"""/metrics, /healthz and /readyz over HTTP.

Law: it only reads, and it answers from the daemon's own event loop: that it answers is what /healthz says.  This module, and
aiohttp with it, is imported only where metrics_bind asks for it.
"""

import errno
import logging
from typing import Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from podvif import errors
from podvif.errors import Refused
from podvif.settings import parse_address

_LOG = logging.getLogger(__name__)
_STOP_SECONDS = 1.0


class Metrics(Protocol):
    """What /metrics shows."""

    registry: CollectorRegistry
    ready: bool


class Readiness(Protocol):
    """What /readyz asks."""

    async def why_not(self) -> str | None:
        """The first reason why the daemon cannot do its work, or None."""


class Health:
    """The three pages.

    Args:
        option: what `bind` is in the configuration, for messages.
        bind: address and port.
        metrics: what to show; its `ready` is set before.
        readiness: whom to ask.

    Attributes:
        address: host and port, as they are after `start`.
    """

    def __init__(self, option: str, bind: str, metrics: Metrics, readiness: Readiness) -> None:
        """Take the address and who is asked."""
        self.address = bind
        self._option = option
        self._metrics = metrics
        self._readiness = readiness
        pages = web.Application()
        pages.router.add_get("/metrics", self._show_metrics)
        pages.router.add_get("/healthz", self._show_health)
        pages.router.add_get("/readyz", self._show_readiness)
        self._runner = web.AppRunner(pages, handle_signals=False, access_log=None, shutdown_timeout=_STOP_SECONDS)

    async def start(self) -> None:
        """Listen.

        Raises:
            Refused: the address is taken, or is none of this machine's.
        """
        host, port = parse_address(self.address)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host or None, port)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            taken = error.errno == errno.EADDRINUSE
            raise Refused(
                f"{self._option} = {self.address} cannot be used: "
                + ("somebody listens there already" if taken else str(error.strerror or error)),
                "choose another port, or leave the option empty for no metrics",
                code=errors.IO_FAILURE,
            ) from error
        found, number, *_ = self._runner.addresses[0]
        self.address = f"[{found}]:{number}" if ":" in str(found) else f"{found}:{number}"
        _LOG.info("metrics at http://%s/metrics", self.address)

    async def stop(self) -> None:
        """Listen no more."""
        await self._runner.cleanup()

    async def _show_metrics(self, request: web.Request) -> web.Response:
        self._metrics.ready = await self._readiness.why_not() is None
        encode, kind = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._metrics.registry), headers={"Content-Type": kind})

    async def _show_health(self, request: web.Request) -> web.Response:
        del request
        return web.Response(text="ok\n")

    async def _show_readiness(self, request: web.Request) -> web.Response:
        del request
        reason = await self._readiness.why_not()
        return web.Response(text="ready\n") if reason is None else web.Response(status=503, text=f"{reason}\n")
