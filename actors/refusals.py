"""How a refusal keeps its class when it crosses to another process, without pickling it."""

from __future__ import annotations

import sys

from palmette.actors.errors import ActorDied, ActorError, DeadlineExceeded, NodeError, Refused
from palmette.actors.wire import CallFailed


def failed(number: int, path: str, error: BaseException) -> CallFailed:
    """The frame that tells a caller elsewhere of ``error``."""
    if isinstance(error, ActorDied):
        return CallFailed(number, "died", str(error), error.path, error.reason)
    if isinstance(error, DeadlineExceeded):
        return CallFailed(number, "deadline", str(error), path)
    name = f"{type(error).__module__}:{type(error).__qualname__}"
    if isinstance(error, Refused | NodeError):
        return CallFailed(number, name, str(error), path)
    # An actor may fail a reply token with any exception; its class means nothing over there.
    return CallFailed(number, name, f"{type(error).__name__}: {error}", path)


def failure(frame: CallFailed) -> ActorError:
    """The exception that a failed call raises on the caller's side."""
    if frame.kind == "died" and frame.reason is not None:
        return ActorDied(frame.path, frame.reason)
    if frame.kind == "deadline":
        return DeadlineExceeded(frame.text)
    return refusal(frame.kind, frame.text)


def refusal(kind: str, text: str) -> ActorError:
    """The exception that ``kind`` names, where this process knows it as a Refused (or NodeError); else a Refused."""
    module, _, qualname = kind.partition(":")
    found: object = sys.modules.get(module)  # never imported: an answer is no reason to run code
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if isinstance(found, type) and issubclass(found, Refused | NodeError) and found.__init__ is Exception.__init__:
        return found(text)
    return Refused(text)
