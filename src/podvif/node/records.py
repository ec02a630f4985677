"""Records: files of a root-only directory, one for each thing that the node has to know of after a restart.

Law: one bad file must not keep the others from being served: it is set aside as NAME.unreadable and said in the log.
"""

import logging
import os
from collections.abc import Callable
from typing import TypeVar

import msgspec

from podvif.host import files

_LOG = logging.getLogger(__name__)
T = TypeVar("T")


def read_records(directory: str, what: str, parse: Callable[[str, str], T]) -> list[T]:
    """Every record in the directory, in the order of the files' names.

    Args:
        directory: where they are; it is there.
        what: what the log calls such a file.
        parse: makes one of a file's name and text, or raises ValueError or an error of msgspec's with the reason why not.

    Raises:
        OSError: the directory cannot be read.
    """
    found = []
    for name in sorted(os.listdir(directory)):  # noqa: PTH208
        if name.startswith("."):
            files.remove(directory, [name])  # a text that had not got its name when the daemon was killed
        elif name.endswith(".json"):
            try:
                found.append(parse(name, files.read_text(directory, name) or ""))
            except (msgspec.MsgspecError, ValueError) as error:
                _LOG.error("%s %s/%s is not readable and is set aside: %s", what, directory, name, error)
                files.move(f"{directory}/{name}", f"{directory}/{name}.unreadable")
    return found
