"""Log lines: standard error, for people or for collectors, each with what it is about.

Law: the facts of the request that runs (verb, container id, ifname, pod) are added to every line by one filter, so that no
call has to hand them down.
"""

import contextvars
import logging
import sys
import time
from collections.abc import Mapping

CONTEXT: contextvars.ContextVar[Mapping[str, str]] = contextvars.ContextVar("context", default={})  # noqa: B039  never mutated

_FIELDS = ("verb", "container_id", "ifname", "pod", "port", "traceparent", "code", "error", "steps")

_CHATTY = ("httpx2", "keystoneauth", "urllib3")
"""Libraries that log every request at INFO."""


class _Context(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        """Add the running request's facts to the record."""
        for key, value in CONTEXT.get().items():
            setattr(record, key, value)
        return True


class _Console(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """The sentence, then the facts as key=value."""
        return "  ".join([super().format(record), *_facts(record)])


def _facts(record: logging.LogRecord) -> list[str]:
    found = [(key, getattr(record, key, None)) for key in _FIELDS]
    return [f"{key}={value if isinstance(value, int) else repr(value)}" for key, value in found if value]


def setup(form: str) -> None:
    """Send every record of INFO and above to standard error, as `console` or `json`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_Context())
    if form == "json":
        from pythonjsonlogger.json import JsonFormatter  # noqa: PLC0415  only where it is asked for

        formatter = JsonFormatter(
            "%(asctime)s %(levelname)s %(name)s %(message)s",
            rename_fields={"asctime": "time", "levelname": "level"},
        )
        # RFC 3339, in UTC: lines of many nodes are read together.
        formatter.converter = time.gmtime
        formatter.default_time_format, formatter.default_msec_format = "%Y-%m-%dT%H:%M:%S", "%s.%03dZ"
        handler.setFormatter(formatter)
    else:
        handler.setFormatter(_Console("%(asctime)s %(levelname)-7s %(message)s"))
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
