"""Many ADDs at once, then many DELs, beside as many calls of os-vif one after the other.

Law: the time of a burst is from its first call to the end of its last.  What it costs this program to start so many processes at
once is measured too, with the program that does nothing.
"""

import secrets
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from bench.contenders import NOOP, OS_VIF, PODVIF, noop, shim
from bench.plan import AT_ONCE, ATTACHMENTS, MODES
from bench.rows import Row, Rows
from bench.stage import Stage


def measure(stage: Stage, rows: Rows, rounds: int) -> None:
    """Server mode, `rounds` times; adds rows of section burst: milliseconds of all ADDs, of all DELs."""
    mode = MODES[0]
    config = stage.config(mode)
    ours, theirs = [stage.daemon.pid], [stage.floor.pid]
    for _ in range(rounds):
        stage.signals.check()
        ids = container_ids()
        ports = [stage.floor.port(mode) for _ in range(ATTACHMENTS)]
        acts: list[tuple[str, str, list[int], Callable[[], object]]] = [
            (PODVIF, "ADD", ours, partial(all_at_once, stage, "ADD", mode, ids)),
            (PODVIF, "DEL", ours, partial(all_at_once, stage, "DEL", mode, ids)),
            (OS_VIF, "ADD", theirs, partial(stage.floor.plug, *ports)),
            (OS_VIF, "DEL", theirs, partial(stage.floor.unplug, *ports)),
            (NOOP, "", [], partial(_pool, lambda _: noop(stage, "ADD", config), ids)),
        ]
        for what, verb, processes, act in acts:
            with stage.turn(*processes):
                began = time.monotonic()
                act()
                passed = time.monotonic() - began
            rows.take(Row("burst", what, "ms", stage.maxsleep, mode, verb), passed * 1000)


def container_ids() -> list[str]:
    """As many new container ids as a burst has calls."""
    return [secrets.token_hex(32) for _ in range(ATTACHMENTS)]


def all_at_once(stage: Stage, verb: str, mode: str, ids: Iterable[str]) -> None:
    """ADD or DEL these containers through the shim.

    Raises:
        LabError: one failed.
    """
    config = stage.config(mode)
    _pool(lambda container_id: shim(stage, verb, config, container_id), ids)


def _pool(do: Callable[[str], object], ids: Iterable[str]) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(do, ids):
            pass
