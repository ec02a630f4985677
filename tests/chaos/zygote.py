"""The mother of the light applications: a process that forks one that holds a vhost-user socket, whenever it is told to.

Law: what it forks behaves as an application whose container is restarted: it tries until it can listen (server) or connect
(client), connects again when it has lost its peer, and is ended by SIGKILL alone, so that what it leaves lies there.  It
speaks no vhost-user.  Nothing of podvif is imported: forking has to be cheap.

On stdin `start NUMBER server|client NETNS PATH` or `kill NUMBER`; on stdout the process id, when it is done.  What became
of an application is one byte at its number in the file named by the first argument.
"""

import contextlib
import ctypes
import mmap
import os
import select
import signal
import socket
import sys
from pathlib import Path

TRYING, WAITING, CONNECTED = range(3)
"""It cannot listen or connect yet; it listens and nobody is there; its peer is there."""

_AGAIN = 0.03
"""Seconds between two tries."""

_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1


def main(board_file: str) -> None:
    """Serve stdin; at its end all applications end too."""
    with Path(board_file).open("r+b") as file:
        board = mmap.mmap(file.fileno(), 0)
    children: dict[int, int] = {}
    for line in sys.stdin:
        verb, text, *rest = line.split()
        number = int(text)
        if verb == "start":
            board[number] = TRYING
            children[number] = _fork(board, number, *rest)
            pid = children[number]
        else:
            pid = children.pop(number)
            _kill(pid)
            board[number] = TRYING
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
    for pid in children.values():
        _kill(pid)


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _fork(board: mmap.mmap, number: int, mode: str, netns: str, path: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with contextlib.suppress(OSError):  # the sandbox may be gone: an application outlives it for a while
        descriptor = os.open(netns, os.O_RDONLY)
        libc.setns(descriptor, _CLONE_NEWNET)
        os.close(descriptor)
    try:
        while True:
            if mode == "server":
                _listen(board, number, path)
            else:
                _connect(board, number, path)
    finally:
        os._exit(1)


def _listen(board: mmap.mmap, number: int, path: str) -> None:
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(path)
    except OSError:  # somebody's socket lies there, or there is no directory
        listener.close()
        select.select([], [], [], _AGAIN)
        return
    listener.listen()
    peers: list[socket.socket] = []
    while True:
        board[number] = CONNECTED if peers else WAITING
        for readable in select.select([listener, *peers], [], [])[0]:
            if readable is listener:
                peers.append(listener.accept()[0])
            elif not _received(readable):
                peers.remove(readable)
                readable.close()


def _connect(board: mmap.mmap, number: int, path: str) -> None:
    with socket.socket(socket.AF_UNIX) as peer:
        try:
            peer.connect(path)
        except OSError:
            board[number] = TRYING
            select.select([], [], [], _AGAIN)
            return
        board[number] = CONNECTED
        while _received(peer):
            pass
        board[number] = TRYING


def _received(peer: socket.socket) -> bytes:
    try:
        return peer.recv(4096)
    except OSError:
        return b""


if __name__ == "__main__":
    main(sys.argv[1])
