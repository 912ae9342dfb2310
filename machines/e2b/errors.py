"""What the e2b SDK raises, sorted: the machine is lost, the image is unusable, or a person must do something.

::

    AuthenticationException              -> MachineError        the key; no other machine does better
    RateLimit, ServiceBusy               -> MachineLost(quota)  another moment may
    404, 403 of a template               -> ImageUnusable
    SandboxNotRunning, SandboxNotFound   -> MachineLost(machine_removed | expired)
    no connection, no answer             -> MachineLost(daemon_gone | daemon_frozen | connection_lost)
    anything else it says                -> MachineLost when the server failed (5xx), MachineError otherwise
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from palmette.machines.errors import ImageUnusable, MachineError, MachineLost
from palmette.machines.evidence import Cause, Evidence

KEY_REMEDY = "set E2B_API_KEY to a key of your account (https://e2b.dev/dashboard?tab=keys) before the program starts"


@contextmanager
def e2b_boundary(
    doing: str, *, template: str | None = None, overdue: Callable[[], bool] = lambda: False
) -> Generator[None]:
    """The one place where the SDK's exceptions become ours.

    Args:
        doing: what was being done, for the message.
        template: what a new sandbox was to be made from, where one was.
        overdue: whether the sandbox's time was up; asked when it is found gone.

    Raises:
        MachineError: see this module.
    """
    try:
        yield
    except MachineError:
        raise
    except Exception as error:
        raise sorted_error(error, doing, template, overdue()) from error


def sorted_error(error: Exception, doing: str, template: str | None, overdue: bool) -> MachineError:
    """Our word for one exception of the SDK, or of what lies below it."""
    import e2b

    text = _first_line(error)
    status = error.status_code if isinstance(error, e2b.SandboxException | e2b.ServiceBusyException) else None
    if isinstance(error, e2b.AuthenticationException):
        return MachineError(f"{doing}: E2B refuses the key ({text}); {KEY_REMEDY}")
    if isinstance(error, e2b.RateLimitException | e2b.ServiceBusyException):
        return _lost(doing, "quota", text)
    if template is not None and status in (403, 404):
        return ImageUnusable(
            f"{doing}: E2B has no template {template!r} for this account ({text}); build it, or name another one "
            "as e2b:NAME"
        )
    if isinstance(error, e2b.SandboxNotRunningException | e2b.SandboxNotFoundException):
        return _lost(doing, "expired" if overdue else "machine_removed", text)
    if cause := connection_cause(error):
        return _lost(doing, cause, text)
    if status is None or status >= 500:
        return _lost(doing, "unknown", text)
    return MachineError(f"{doing}: E2B refuses: {text}")


def connection_cause(error: BaseException) -> Cause | None:
    """What is wrong with the way to E2B; ``None`` when E2B gave an answer."""
    import httpx
    import pyqwest
    from e2b import SandboxUnreachableException, TimeoutException

    if isinstance(error, httpx.ConnectError | ConnectionError):
        return "daemon_gone"
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return "daemon_frozen"
    if isinstance(error, httpx.TransportError | pyqwest.ReadError | pyqwest.WriteError | pyqwest.StreamError):
        return "connection_lost"
    # The SDK wraps what its transport raised; the innermost knows best whether anybody was there.
    if error.__cause__ is not None and (cause := connection_cause(error.__cause__)):
        return cause
    if isinstance(error, SandboxUnreachableException):
        return "connection_lost"
    return "daemon_frozen" if isinstance(error, TimeoutException) else None


def _lost(doing: str, cause: Cause, text: str) -> MachineLost:
    return MachineLost(doing, Evidence(cause=cause, detail=text))


def _first_line(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0] or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
