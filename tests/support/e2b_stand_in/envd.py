"""What envd, the daemon in each sandbox, answers: processes, files, health; and the proxy before it."""

from __future__ import annotations

import asyncio
import base64
import email
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from support.e2b_stand_in.commands import Command, Queue
from support.e2b_stand_in.namespaces import HOME, USER
from support.e2b_stand_in.sandbox import Sandbox
from support.e2b_stand_in.wire import Message, RpcError, child, frame, frames, text, unary, unframed

_SIGNALS = {"SIGNAL_SIGKILL": signal.SIGKILL, "SIGNAL_SIGTERM": signal.SIGTERM}
Unary = Callable[[Sandbox, Message], Awaitable[Message]]


class StreamCut(Exception):
    """The connection under a stream breaks: what has been sent stays sent, no end comes."""


class Envd:
    """Routes each request to the sandbox that its headers name."""

    def __init__(self, sandboxes: Mapping[str, Sandbox]) -> None:
        self._sandboxes = sandboxes
        self._streams: set[asyncio.Task[object]] = set()
        self._cut: set[asyncio.Task[object]] = set()

    def routes(self) -> list[Route]:
        process, files = "/process.Process/", "/filesystem.Filesystem/"
        calls: dict[str, Unary] = {
            process + "List": _list,
            process + "SendInput": _send_input,
            process + "CloseStdin": _close_stdin,
            process + "SendSignal": _send_signal,
            process + "Update": _update,
            files + "Stat": _stat,
            files + "ListDir": _list_directory,
            files + "MakeDir": _make_directory,
            files + "Move": _move,
            files + "Remove": _remove,
        }
        return [
            *(Route(path, self._unary(call), methods=["POST"]) for path, call in calls.items()),
            Route(process + "Start", self._start, methods=["POST"]),
            Route(process + "Connect", self._connect, methods=["POST"]),
            Route(process + "StreamInput", self._stream_input, methods=["POST"]),
            Route("/health", self._health, methods=["GET"]),
            Route("/files", self._read, methods=["GET"]),
            Route("/files", self._write, methods=["POST"]),
        ]

    def refusal(self, sandbox: str | None, token: str | None) -> Response | None:
        """What the proxy says in place of envd."""
        found = self._sandboxes.get(sandbox or "")
        if found is None or found.paused:
            return JSONResponse({"sandboxId": sandbox, "message": "The sandbox was not found", "code": 502}, 502)
        if token != found.token:
            return JSONResponse(
                {"code": 401, "message": "unauthorized access, please provide a valid access token"}, 401
            )
        return None

    def cut_streams(self) -> int:
        """Break the connection under every stream that is open now; how many there were."""
        self._cut |= self._streams
        for task in self._cut:
            task.cancel()
        return len(self._cut)

    def _unary(self, call: Unary) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            try:
                return JSONResponse(await call(self._sandbox(request), await unary(request)))
            except RpcError as error:
                return error.response()

        return answer

    def _sandbox(self, request: Request) -> Sandbox:
        return self._sandboxes[request.headers["e2b-sandbox-id"]]

    async def _start(self, request: Request) -> Response:
        try:
            command = self._sandbox(request).start_command(await unframed(request))
        except RpcError as error:
            return _stream_of(error)
        if timeout := request.headers.get("connect-timeout-ms"):
            handle = asyncio.get_running_loop().call_later(int(timeout) / 1000, command.kill_leader)
            command.when_ended(handle.cancel)
        return self._stream(command)

    async def _connect(self, request: Request) -> Response:
        try:
            return self._stream(self._sandbox(request).command(await unframed(request)))
        except RpcError as error:
            return _stream_of(error)

    def _stream(self, command: Command) -> Response:
        # Listens before anything is awaited: a quick command's output would be missed.
        return StreamingResponse(self._frames(command, command.listen()), media_type="application/connect+json")

    async def _frames(self, command: Command, queue: Queue) -> AsyncIterator[bytes]:
        task = asyncio.current_task()
        assert task is not None
        self._streams.add(task)
        try:
            async for event in command.events(queue):
                yield frame({"event": event})
            yield frame({}, last=True)
        except asyncio.CancelledError as error:
            if task not in self._cut:  # the client went away
                raise
            raise StreamCut from error
        finally:
            self._streams.discard(task)
            self._cut.discard(task)

    async def _stream_input(self, request: Request) -> Response:
        try:
            command: Command | None = None
            async for message in frames(request):
                if "start" in message:
                    command = self._sandbox(request).command(child(message, "start"))
                elif command is not None and "data" in message:
                    await _input(command, child(message, "data"))
        except RpcError as error:
            return _stream_of(error)
        return Response(frame({}) + frame({}, last=True), media_type="application/connect+json")

    async def _health(self, request: Request) -> Response:
        return Response(status_code=204)

    async def _read(self, request: Request) -> Response:
        path = _path(self._sandbox(request), request.query_params.get("path", ""))
        if not path.is_file():
            return JSONResponse({"code": 404, "message": f"path '{path.name}' does not exist"}, 404)
        return Response(path.read_bytes(), media_type="application/octet-stream")

    async def _write(self, request: Request) -> Response:
        kind, body = request.headers.get("content-type", ""), await request.body()
        name = request.query_params.get("path", "")
        files = [(name, body)] if kind == "application/octet-stream" else _parts(kind, body, name)
        written: list[Message] = []
        for name, data in files:
            path = _path(self._sandbox(request), name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            os.chown(path, USER, USER)
            written.append({"path": _inner(path), "name": path.name, "type": "file"})
        return JSONResponse(written)


def _stream_of(error: RpcError) -> Response:
    body = frame({"error": {"code": error.code, "message": str(error)}}, last=True)
    return Response(body, media_type="application/connect+json")


async def _input(command: Command, message: Message) -> None:
    given = child(message, "input")
    kind = "pty" if "pty" in given else "stdin"
    await command.write(base64.b64decode(text(given, kind)), terminal=kind == "pty")


async def _list(sandbox: Sandbox, request: Message) -> Message:
    return {"processes": [command.described() for command in sandbox.commands.values()]}


async def _send_input(sandbox: Sandbox, request: Message) -> Message:
    await _input(sandbox.command(request), request)
    return {}


async def _close_stdin(sandbox: Sandbox, request: Message) -> Message:
    await sandbox.command(request).close_stdin()
    return {}


async def _send_signal(sandbox: Sandbox, request: Message) -> Message:
    name = text(request, "signal")
    if name not in _SIGNALS:
        raise RpcError("unimplemented", f"invalid signal: {name}")
    sandbox.command(request).signal(_SIGNALS[name])
    return {}


async def _update(sandbox: Sandbox, request: Message) -> Message:
    sandbox.command(request).resize(request)
    return {}


async def _stat(sandbox: Sandbox, request: Message) -> Message:
    return {"entry": _entry(_existing(sandbox, request))}


async def _list_directory(sandbox: Sandbox, request: Message) -> Message:
    path = _existing(sandbox, request)
    if not path.is_dir():
        raise RpcError("invalid_argument", "path is not a directory")
    return {"entries": [_entry(one) for one in sorted(path.iterdir())]}


async def _make_directory(sandbox: Sandbox, request: Message) -> Message:
    path = _path(sandbox, text(request, "path"))
    if path.exists():
        raise RpcError("already_exists", "directory already exists")
    path.mkdir(parents=True)
    os.chown(path, USER, USER)
    return {"entry": _entry(path)}


async def _move(sandbox: Sandbox, request: Message) -> Message:
    target = _path(sandbox, text(request, "destination"))
    os.replace(_existing(sandbox, {"path": request.get("source")}), target)
    return {"entry": _entry(target)}


async def _remove(sandbox: Sandbox, request: Message) -> Message:
    path = _existing(sandbox, request)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return {}


def _path(sandbox: Sandbox, name: str) -> Path:
    return sandbox.inside.path(name)


def _existing(sandbox: Sandbox, request: Message) -> Path:
    path = _path(sandbox, text(request, "path"))
    if not path.exists():
        raise RpcError("not_found", f"file not found: {json.dumps(request.get('path'))}")
    return path


def _inner(path: Path) -> str:
    """The name of ``path`` inside: what follows ``/proc/PID/root``."""
    return "/" + "/".join(path.parts[4:]) if len(path.parts) > 4 else HOME


def _parts(kind: str, body: bytes, name: str) -> list[tuple[str, bytes]]:
    """The files of a multipart body; a single one is called ``name`` if that is given."""
    message = email.message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
    found: list[tuple[str, bytes]] = []
    for part in message.walk():
        data = part.get_payload(decode=True)
        if isinstance(data, bytes):
            found.append((name or str(part.get_filename()), data))
    return found


def _entry(path: Path) -> Message:
    kind = "FILE_TYPE_DIRECTORY" if path.is_dir() else "FILE_TYPE_FILE"
    status = path.stat()
    return {
        "name": path.name,
        "type": kind,
        "path": _inner(path),
        "size": str(status.st_size),
        "mode": status.st_mode & 0o7777,
        "permissions": oct(status.st_mode & 0o777),
        "owner": "user",
        "group": "user",
    }
