"""An HTTP server on loopback, as a part of an actor: it listens before the start returns, and ends with its task."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator
from typing import TYPE_CHECKING

from palmette.agents.errors import MissingExtra

if TYPE_CHECKING:
    from palmette.agents.proxy.app import ProxyApp

_STOP_SECONDS = 5


def listen() -> socket.socket:
    """A socket on a free port of loopback."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.setblocking(False)
    return listener


async def serve(app: ProxyApp, listener: socket.socket) -> None:
    """Answer requests until cancelled; then all connections are closed, and the socket."""
    try:
        import uvicorn
    except ModuleNotFoundError:
        listener.close()
        raise MissingExtra("uvicorn", "proxy") from None

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Generator[None]:
            yield  # signals belong to the process that we are a part of

    server = Server(
        uvicorn.Config(
            app,
            log_config=None,
            log_level="critical",  # clients that hang up are none of its business; its own trouble is told by raising
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=_STOP_SECONDS,
        )
    )
    task = asyncio.create_task(server.serve(sockets=[listener]), name="palmette-model-proxy")
    try:
        await asyncio.shield(task)
    finally:
        # Its clients are ended by now (their sessions are closed): what is left are idle connections.
        server.should_exit = server.force_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([task], timeout=_STOP_SECONDS)
        task.cancel()
        listener.close()
