"""An application that begins to listen again and again, as fast as it can: `hammer.py SOCKET SECONDS`.

Law: after each bind(2) its socket has to lie at its path until it closes it, whoever looks meanwhile.  What it leaves dead it
removes itself most times, at a moment that nobody can foresee, and binds at once; else it waits until somebody else has.  It says what it found
as JSON.  Nothing of podvif is imported.
"""

import contextlib
import json
import os
import random
import socket
import sys
import time

AT_ONCE = 0.9
"""How often it makes room itself."""

BACK = 3
"""Seconds in which a socket that was put aside for a look has to be back in its place."""


def main(path: str, seconds: float) -> None:
    """Hammer."""
    found = {"binds": 0, "freed": 0, "lost": 0, "aside": 0}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        listener = socket.socket(socket.AF_UNIX)
        freed = _bind(listener, path, end)
        if freed is None:
            listener.close()
            break
        found["binds"] += 1
        found["freed"] += freed
        listener.listen()
        hold = time.monotonic() + random.uniform(0, 0.004)  # noqa: S311  when nobody can foresee
        while time.monotonic() < hold:
            if not os.path.lexists(path):
                found["aside"] += 1
                found["lost"] += not _back(path)
                break
        listener.close()
        if random.random() < AT_ONCE:  # noqa: S311
            time.sleep(random.uniform(0, 0.01))  # noqa: S311  about as long as a look takes to come
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108
    sys.stdout.write(json.dumps(found))


def _bind(listener: socket.socket, path: str, end: float) -> bool | None:
    """Bind as soon as that is possible; whether somebody else had to make room, None when the time is over first."""
    waited = False
    while time.monotonic() < end:
        try:
            listener.bind(path)
        except OSError:
            waited = True
            time.sleep(0.001)
        else:
            return waited
    return None


def _back(path: str) -> bool:
    end = time.monotonic() + BACK
    while time.monotonic() < end:
        if os.path.lexists(path):
            return True
    return False


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
