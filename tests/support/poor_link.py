"""A bad network link: two tunnel devices, and a program between them that delays and loses packets.

``python poor_link.py NETNS HERE THERE DELAY LOSS`` runs until its standard input ends. ``HERE`` is the address of the
end in the namespace where it is started, ``THERE`` that of the end in NETNS; DELAY is in seconds each way, LOSS the
part of the packets that do not arrive. The kernel's own ``netem`` is not there on every machine.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import itertools
import os
import random
import select
import struct
import subprocess
import sys
import time

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
MOST = 1 << 16


def tunnel(name: str, here: str, there: str) -> int:
    """A tunnel device in the present namespace; what is written to it arrives there."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    subprocess.run(["ip", "addr", "add", here, "peer", there, "dev", name], check=True, timeout=20)
    subprocess.run(["ip", "link", "set", name, "up"], check=True, timeout=20)
    return device


def enter(namespace: str) -> None:
    """Move this process into a network namespace."""
    descriptor = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
    os.close(descriptor)


def main(namespace: str, here: str, there: str, delay: float, loss: float) -> None:
    near = tunnel(f"plmp{os.getpid()}"[:15], here, there)
    enter(namespace)
    far = tunnel("poor0", there, here)
    other = {near: far, far: near}
    chance = random.Random(7)
    numbers = itertools.count()
    on_the_way: list[tuple[float, int, int, bytes]] = []
    print("up", flush=True)
    while True:
        wait = max(0.0, on_the_way[0][0] - time.monotonic()) if on_the_way else None
        ready, _, _ = select.select([near, far, 0], [], [], wait)
        if 0 in ready:
            return
        for device in ready:
            packet = os.read(device, MOST)
            if chance.random() >= loss:
                heapq.heappush(on_the_way, (time.monotonic() + delay, next(numbers), other[device], packet))
        while on_the_way and on_the_way[0][0] <= time.monotonic():
            _, _, device, packet = heapq.heappop(on_the_way)
            try:
                os.write(device, packet)
            except BlockingIOError:
                continue  # a full queue loses packets, too


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]), float(sys.argv[5]))
