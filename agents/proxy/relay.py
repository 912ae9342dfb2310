"""Runs on a machine, with nothing but its Python (3.6 or newer): a port there that leads to the proxy.

It listens on the machine's own loopback and carries connections over its standard input and output, so that it needs no
network: wherever a command can be run, the proxy can be reached. Frames, both ways: connection number (4 bytes), length
(4 bytes), and so many bytes; none of them end a direction. The first frame, of connection 0, is the port as text.
"""

import os
import socket
import struct
import threading
from typing import Dict

_HEAD = struct.Struct(">II")
_lock = threading.Lock()


def _write(number: int, data: bytes) -> None:
    piece = _HEAD.pack(number, len(data)) + data
    with _lock:
        while piece:
            piece = piece[os.write(1, piece) :]


def _read(size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = os.read(0, size - len(data))
        if not piece:
            os._exit(0)  # whoever we work for is gone
        data += piece
    return data


def _carry(number: int, connection: socket.socket) -> None:
    try:
        while True:
            data = connection.recv(65536)
            _write(number, data)
            if not data:
                return
    except OSError:
        _write(number, b"")


def _accept(listener: socket.socket, connections: Dict[int, socket.socket]) -> None:
    number = 0
    while True:
        connection = listener.accept()[0]
        number += 1
        connections[number] = connection
        threading.Thread(target=_carry, args=(number, connection), daemon=True).start()


def main() -> None:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    connections: Dict[int, socket.socket] = {}
    _write(0, str(listener.getsockname()[1]).encode())
    threading.Thread(target=_accept, args=(listener, connections), daemon=True).start()
    while True:
        number, size = _HEAD.unpack(_read(_HEAD.size))
        data = _read(size)
        connection = connections.get(number)
        if connection is None:
            continue
        try:
            if data:
                connection.sendall(data)
            else:
                del connections[number]
                connection.shutdown(socket.SHUT_RDWR)
                connection.close()
        except OSError:
            pass  # its program has gone; the other direction says so


if __name__ == "__main__":
    main()
