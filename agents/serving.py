"""An HTTP server on loopback, as a part of something that lives: it listens at once, and ends with its task."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Generator

from palmette.agents.errors import MissingExtra

_STOP_SECONDS = 5
_MARGIN = 2


def listen(port: int = 0) -> socket.socket:
    """A socket on ``port`` of loopback, or on a free one. Raises OSError where it is taken."""
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    listener.setblocking(False)
    return listener


async def serve(
    app: Callable[..., Awaitable[None]], listener: socket.socket, *, name: str, finish: bool = False
) -> None:
    """Answer requests with the ASGI application ``app`` until cancelled; then close all connections, and the socket.

    Args:
        app: It is not told of start and stop.
        listener: From :func:`listen`.
        name: Of the task, for people.
        finish: Whether requests that are being answered may end, for five seconds at most.

    Raises:
        MissingExtra: uvicorn is not installed.
    """
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
    task = asyncio.create_task(server.serve(sockets=[listener]), name=name)
    try:
        await asyncio.shield(task)
    finally:
        server.should_exit = True
        server.force_exit = not finish
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([task], timeout=_STOP_SECONDS + _MARGIN)
        task.cancel()
        listener.close()
