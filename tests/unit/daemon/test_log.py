"""Log lines, as they arrive on standard error."""

import json
import logging
from collections.abc import Iterator

import pytest

from podvif.daemon import log


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """The root logger is the process's: it is given back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(autouse=True)
def request_facts() -> Iterator[None]:
    """A request is running."""
    token = log.CONTEXT.set({"verb": "ADD", "container_id": "c0ffee", "pod": "ns/p"})
    yield
    log.CONTEXT.reset(token)


def test_console(capsys: pytest.CaptureFixture[str]) -> None:
    """For people: one line with the sentence, then what it is about as key=value."""
    log.setup("console")
    logging.getLogger("podvif.x").info("ok in %.1f ms", 1.25, extra={"steps": ["plug"], "code": 11})

    (line,) = capsys.readouterr().err.splitlines()
    assert " INFO    ok in 1.2 ms  verb='ADD'  container_id='c0ffee'  pod='ns/p'  code=11  steps=['plug']" in line


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    """For collectors: one JSON object a line with the same facts by name."""
    log.setup("json")
    logging.getLogger("podvif.x").warning("failed", extra={"error": "it\nbroke", "ms": 1.5})

    (line,) = capsys.readouterr().err.splitlines()
    found = json.loads(line)
    assert found.pop("time")
    assert found == {
        "level": "WARNING",
        "name": "podvif.x",
        "message": "failed",
        "verb": "ADD",
        "container_id": "c0ffee",
        "pod": "ns/p",
        "error": "it\nbroke",
        "ms": 1.5,
    }


@pytest.mark.parametrize("form", ["console", "json"])
def test_without_a_request(capsys: pytest.CaptureFixture[str], form: str) -> None:
    """A line of no request has no facts of one, and details below INFO are not said."""
    log.CONTEXT.set({})
    log.setup(form)
    logging.getLogger("podvif.x").info("ready")
    logging.getLogger("podvif.x").debug("hidden")

    told = capsys.readouterr().err
    assert "ready" in told
    assert not {"verb", "container_id", "hidden"} & set(told.replace('"', " ").replace("=", " ").split())


@pytest.mark.parametrize("form", ["console", "json"])
def test_traceback(capsys: pytest.CaptureFixture[str], form: str) -> None:
    """An unforeseen exception is told with its traceback."""
    log.setup(form)
    logging.getLogger("podvif.x").error("unforeseen", exc_info=KeyError("x"))

    assert "KeyError: 'x'" in capsys.readouterr().err
