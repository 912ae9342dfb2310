"""Is anybody listening at a model's address? Asked before anything is started, so that a typing error costs seconds."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from palmette.agents.boundary import public_url
from palmette.agents.errors import ModelUnavailable

SECONDS = 2.0


def reach(url: str, *, seconds: float = SECONDS) -> None:
    """Open a TCP connection to the host of ``url``, and close it. Blocks for ``seconds`` at most (per address).

    Where a proxy of the environment stands between, nothing can be told from here, and nothing is tried.

    Raises:
        ModelUnavailable: nobody listens, or the host is not known.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    loopback = host == "localhost" or host.startswith("127.") or host == "::1"
    if not loopback and parts.scheme in getproxies() and not proxy_bypass(host):
        return
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((host, port), timeout=seconds).close()
    except OSError as error:
        why = "the host name is not known" if isinstance(error, socket.gaierror) else (error.strerror or "no answer")
        raise ModelUnavailable(
            f"cannot reach the model endpoint {public_url(url)}: {why.lower()}; start the server or pass another "
            "--base-url"
        ) from None
