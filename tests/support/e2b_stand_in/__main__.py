"""The server's process: ``python -m support.e2b_stand_in DIRECTORY API_KEY MOST`` prints its port.

It ends, with every sandbox, when its standard input does.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from support.e2b_stand_in.control import ControlPlane
from support.e2b_stand_in.envd import Envd
from support.e2b_stand_in.faults import Fault, Faults


class Server:
    """Everything behind one port, on loopback."""

    def __init__(self, directory: Path, api_key: str, most: int) -> None:
        self._control = ControlPlane(directory, api_key, most)
        self._envd = Envd(self._control.sandboxes)
        self._app = Starlette(routes=[*self._control.routes(), *self._envd.routes(), *self._own_routes()])
        self._api_key = api_key.encode()
        self._leaks = 0
        self._faults = Faults(self._guarded)
        self._uvicorn = uvicorn.Server(
            uvicorn.Config(self._faults, log_level="critical", access_log=False, lifespan="off", ws="none")
        )

    async def serve(self) -> None:
        # asyncio switches Nagle's algorithm off only where the protocol is spelt out: else 40 ms for every answer.
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        print(listening.getsockname()[1], flush=True)
        serving = asyncio.get_running_loop().create_task(self._uvicorn.serve([listening]))
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
        await self._control.close()
        self._uvicorn.should_exit = self._uvicorn.force_exit = True
        await serving

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Keys are asked for; and one that goes where it must not is counted."""
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        path = str(scope["path"])
        refusal: Response | None = None
        if path.startswith(("/sandboxes", "/v2/", "/templates/")):
            refusal = self._control.refusal(headers.get("x-api-key"))
        elif not path.startswith("/stand-in/"):
            if any(self._api_key in value for _, value in scope["headers"]):
                self._leaks += 1
            refusal = self._envd.refusal(headers.get("e2b-sandbox-id"), headers.get("x-access-token"))

        async def watched() -> dict[str, object]:
            message = await receive()
            if self._api_key in bytes(message.get("body", b"")):
                self._leaks += 1
            return dict(message)

        await (self._app if refusal is None else refusal)(scope, watched, send)

    def _own_routes(self) -> list[Route]:
        return [
            Route("/stand-in/faults", self._plan, methods=["POST"]),
            Route("/stand-in/cut", self._cut, methods=["POST"]),
            Route("/stand-in/forget", self._forget, methods=["POST"]),
            Route("/stand-in/report", self._report, methods=["GET"]),
        ]

    async def _plan(self, request: Request) -> Response:
        self._faults.planned = msgspec.json.decode(await request.body(), type=list[Fault])
        return JSONResponse({})

    async def _cut(self, request: Request) -> Response:
        return JSONResponse({"streams": self._envd.cut_streams()})

    async def _forget(self, request: Request) -> Response:
        self._faults.planned = []
        self._faults.asked.clear()
        self._leaks = 0
        for connection in tuple(self._uvicorn.server_state.connections):
            connection.shutdown()
        return JSONResponse({})

    async def _report(self, request: Request) -> Response:
        return JSONResponse(
            {
                "asked": self._faults.asked,
                "leaks": self._leaks,
                "sandboxes": {one.id: one.metadata for one in self._control.sandboxes.values()},
            }
        )


if __name__ == "__main__":
    asyncio.run(Server(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])).serve())
