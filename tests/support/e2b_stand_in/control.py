"""The control plane: sandboxes, their lifetimes, snapshots and forks."""

from __future__ import annotations

import asyncio
import secrets
import urllib.parse
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from support.e2b_stand_in.sandbox import Sandbox
from support.e2b_stand_in.wire import Message, number, text, texts

SHORTEST_PAGE = 100


class ControlPlane:
    """All sandboxes and snapshots of the one account.

    Args:
        directory: where sandboxes and snapshots are kept.
        api_key: what every request must bring.
        most: sandboxes that may be alive at a time.
    """

    def __init__(self, directory: Path, api_key: str, most: int = 100) -> None:
        self.sandboxes: dict[str, Sandbox] = {}
        self._directory = directory
        self._api_key = api_key
        self._most = most
        self._snapshots: dict[str, Path] = {}
        self._endings: set[asyncio.Task[None]] = set()

    def routes(self) -> list[Route]:
        one = "/sandboxes/{id}"
        return [
            Route("/v2/sandboxes", self._create, methods=["POST"]),
            Route("/v2/sandboxes", self._list, methods=["GET"]),
            Route(one, self._get, methods=["GET"]),
            Route(one, self._delete, methods=["DELETE"]),
            Route(f"{one}/timeout", self._timeout, methods=["POST"]),
            Route(f"{one}/pause", self._pause, methods=["POST"]),
            Route(f"/v2{one}/connect", self._connect, methods=["POST"]),
            Route(f"{one}/snapshots", self._snapshot, methods=["POST"]),
            Route(f"{one}/fork", self._fork, methods=["POST"]),
            Route("/templates/{id:path}", self._delete_snapshot, methods=["DELETE"]),
        ]

    def refusal(self, request_key: str | None) -> Response | None:
        if request_key == self._api_key:
            return None
        return _error(401, "Invalid API key, please visit https://e2b.dev/docs/api-key for more information.")

    async def close(self) -> None:
        for sandbox in tuple(self.sandboxes.values()):
            self._end(sandbox)
        while self._endings:
            await asyncio.wait(self._endings)

    def _end(self, sandbox: Sandbox) -> asyncio.Task[None]:
        """From now on it is not found; the task is done when nothing of it is left."""
        self.sandboxes.pop(sandbox.id, None)
        task = asyncio.get_running_loop().create_task(sandbox.end())
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)
        return task

    async def _create(self, request: Request) -> Response:
        body: Message = await request.json()
        template = text(body, "templateID")
        if template not in ("base", *self._snapshots):
            return _error(404, f"template '{template}' not found")
        metadata, envs, timeout = texts(body, "metadata"), texts(body, "envVars"), number(body, "timeout", 15)
        made = await self._make(template, metadata, envs, timeout, self._snapshots.get(template))
        return made if isinstance(made, Response) else JSONResponse(made.credentials(), 201)

    async def _make(
        self, template: str, metadata: dict[str, str], envs: dict[str, str], timeout: float, files: Path | None
    ) -> Sandbox | Response:
        if len(self.sandboxes) >= self._most:
            return _error(429, f"you have reached the maximum number of concurrent E2B sandboxes ({self._most})")
        sandbox = Sandbox(self._directory / "sandboxes", template, metadata, envs, lambda one: self._end(one) and None)
        self.sandboxes[sandbox.id] = sandbox
        try:
            await sandbox.start(timeout, files)
        except BaseException:
            self._end(sandbox)
            raise
        return sandbox

    async def _list(self, request: Request) -> Response:
        wanted = dict(urllib.parse.parse_qsl(request.query_params.get("metadata", "")))
        wanted = {urllib.parse.unquote(key): urllib.parse.unquote(value) for key, value in wanted.items()}
        states = request.query_params.getlist("state")
        found = [
            one
            for one in self.sandboxes.values()
            if wanted.items() <= one.metadata.items()
            and (not states or ("paused" if one.paused else "running") in states)
        ]
        first = int(request.query_params.get("nextToken", 0))
        end = first + int(request.query_params.get("limit", SHORTEST_PAGE))
        headers = {"X-Next-Token": str(end)} if end < len(found) else None
        return JSONResponse([one.described() for one in found[first:end]], headers=headers)

    async def _get(self, request: Request) -> Response:
        found = self._found(request)
        return found if isinstance(found, Response) else JSONResponse(found.described())

    async def _delete(self, request: Request) -> Response:
        found = self._found(request)
        if isinstance(found, Response):
            return found
        await asyncio.wait([self._end(found)])
        return Response(status_code=204)

    async def _timeout(self, request: Request) -> Response:
        found = self._found(request)
        if isinstance(found, Response):
            return found
        found.live_for(number(await request.json(), "timeout"))
        return Response(status_code=204)

    async def _pause(self, request: Request) -> Response:
        found = self._found(request)
        if isinstance(found, Response):
            return found
        if found.paused:
            return _error(409, "already paused")
        found.pause()
        return Response(status_code=204)

    async def _connect(self, request: Request) -> Response:
        found = self._found(request)
        if isinstance(found, Response):
            return found
        timeout = number(await request.json(), "timeout", 15)
        if found.paused:
            found.resume(timeout)
        else:
            found.live_for(timeout)
        return JSONResponse(found.credentials(), 200)

    async def _snapshot(self, request: Request) -> Response:
        found = self._found(request)
        if isinstance(found, Response):
            return found
        name = text(await request.json(), "name") or secrets.token_hex(8)
        snapshot = f"snapshot-{name}:default"
        where = self._directory / "snapshots" / secrets.token_hex(8)
        await found.keep_files(where)
        self._snapshots[snapshot] = where
        return JSONResponse({"snapshotID": snapshot, "names": [name]}, 201)

    async def _fork(self, request: Request) -> Response:
        found = self._found(request)
        if isinstance(found, Response):
            return found
        body = await request.json()
        files = self._directory / "forks" / secrets.token_hex(8)
        await found.keep_files(files)
        forks: list[Message] = []
        for _ in range(number(body, "count", 1)):
            made = await self._make(found.template, found.metadata, found.envs, number(body, "timeout", 15), files)
            if isinstance(made, Response):
                forks.append({"error": {"code": made.status_code, "message": "no more sandboxes"}})
            else:
                forks.append({"sandbox": made.credentials()})
        return JSONResponse(forks, 201)

    async def _delete_snapshot(self, request: Request) -> Response:
        found = self._snapshots.pop(urllib.parse.unquote(request.path_params["id"]), None)
        return _error(404, "no such template") if found is None else Response(status_code=204)

    def _found(self, request: Request) -> Sandbox | Response:
        name = request.path_params["id"]
        return self.sandboxes.get(name) or _error(
            404, f"sandbox \"{name}\" doesn't exist or you don't have access to it"
        )


def _error(status: int, message: str) -> Response:
    return JSONResponse({"code": status, "message": message}, status)
