"""The daemon at rest, with many attachments.

Law: the processor time is the kernel's account of the process (utime and stime), over a time in which nobody asks it anything.
"""

import time

from bench.burst import all_at_once, container_ids
from bench.plan import ATTACHMENTS, MODES
from bench.rows import Row, Rows
from bench.stage import Stage

RSS_START = "RSS at its start"
RSS = "RSS with attachments, at the end"
CPU = "CPU idle with attachments"


def at_start(stage: Stage, rows: Rows) -> None:
    """Note the memory of a daemon that has not been asked anything."""
    rows.take(Row("daemon", RSS_START, "MB", stage.maxsleep), _megabytes(stage))


def measure(stage: Stage, rows: Rows, seconds: float) -> None:
    """Adds rows of section daemon."""
    ids = container_ids()
    mode = MODES[0]
    try:
        all_at_once(stage, "ADD", mode, ids)
        stage.raw.settle()
        stage.catch_up()
        where = Row("daemon", "", "", stage.maxsleep, mode, "", ATTACHMENTS)
        rows.take(Row(where.section, RSS, "MB", where.maxsleep, mode, "", ATTACHMENTS), _megabytes(stage))
        before, began = stage.daemon.cpu_seconds(), time.monotonic()
        with stage.signals.welcome():
            time.sleep(seconds)  # what is measured is time that passes
        used, passed = stage.daemon.cpu_seconds() - before, time.monotonic() - began
        rows.take(Row(where.section, CPU, "%", where.maxsleep, mode, "", ATTACHMENTS), 100 * used / passed)
    finally:
        all_at_once(stage, "DEL", mode, ids)


def _megabytes(stage: Stage) -> float:
    return stage.daemon.rss_kib() * 1024 / 1e6
