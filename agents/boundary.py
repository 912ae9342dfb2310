"""The one place where the OpenAI SDK's exceptions become ours.

Everything that talks to a model endpoint through the SDK does so inside :func:`boundary`; nothing behind it knows the
SDK's exception classes. The original exception is suppressed (``from None``): its text is the server's, which may
echo the key, and a traceback of it would end in the journal. What helps to act is in the new message.
"""

from __future__ import annotations

import contextlib
import email.utils
import math
import socket
import ssl
import time
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit, urlunsplit

from palmette.agents.errors import ContextFull, ModelError, ModelRefused, ModelUnavailable, RequestRefused

if TYPE_CHECKING:
    import openai

_DETAIL = 240
"""Characters of a server's own words that go into a message."""
_OVERLOADED = frozenset({408, 409, 425, 429})
"""The 4xx that speak of now rather than of the request; all 5xx do."""


@contextlib.contextmanager
def boundary(*, endpoint: str, model: str, seconds: float, key_env: str, secrets: Sequence[str]) -> Generator[None]:
    """Turn what the OpenAI SDK raises for one request into :class:`ModelError`; anything else passes.

    Args:
        endpoint: The base URL, for the message; credentials in it are left out.
        model: The model's name, for the message.
        seconds: The request's deadline, for the message.
        key_env: The environment variable that the key came from, for the message.
        secrets: Strings that are cut out of whatever the server said.

    Raises:
        ModelUnavailable: unreachable, overloaded, or timed out.
        ModelRefused: the endpoint says no.
    """
    import openai

    where = f"the model endpoint {public_url(endpoint)}"
    try:
        yield
    except (openai.APITimeoutError, TimeoutError):
        raise ModelUnavailable(f"{where} did not answer within {seconds:g} s") from None
    except openai.APIStatusError as error:
        detail = one_line(_said(error), secrets)
        raise refusal(
            error.status_code,
            detail,
            where=where,
            model=model,
            key_env=key_env,
            code=error.code or "",
            retry_after=retry_after(error.response.headers),
        ) from None
    except openai.APIConnectionError as error:
        why = one_line(in_plain_words(error), secrets)
        raise ModelUnavailable(f"cannot reach {where}: {why}; start the server or pass another --base-url") from None
    except openai.OpenAIError as error:
        raise ModelRefused(f"{where} cannot be used: {one_line(str(error), secrets)}") from None


def refusal(
    status: int,
    detail: str,
    *,
    where: str,
    model: str,
    key_env: str,
    code: str = "",
    retry_after: float | None = None,
) -> ModelError:
    """The error for an HTTP status above 399. ``code`` is the API's own word for it, such as ``model_not_found``."""
    said = f" ({status}{': ' + detail if detail else ''})"
    if code == "insufficient_quota":  # comes as a 429, but waiting does not fill an account
        return ModelRefused(f"{where} says that the quota is used up{said}; add credit or use another key")
    if status in _OVERLOADED or status >= 500:
        wait = "" if retry_after is None else f"; it asks to wait {retry_after:g} s"
        overloaded = status in {429, 503, 529}
        state = "is overloaded" if overloaded else "failed"
        return ModelUnavailable(f"{where} {state}{said}{wait}", retry_after=retry_after, overloaded=overloaded)
    if status in {401, 403}:
        return ModelRefused(f"{where} refuses the API key{said}; check the environment variable {key_env}")
    if status == 404:
        return ModelRefused(
            f"{where} knows no model {model!r}{said}; check --model, and that --base-url ends in /v1 or the like"
        )
    # vLLM and others send no code, only OpenAI's sentence.
    if code == "context_length_exceeded" or "maximum context length" in detail:
        return ContextFull(f"the conversation is longer than the context window of {model!r}{said}")
    return RequestRefused(f"{where} refuses the request{said}")


def public_url(url: str) -> str:
    """``url`` without user name, password, query and fragment, fit for messages.

    >>> public_url("http://me:secret@host:1/v1?key=k")
    'http://host:1/v1'
    """
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _said(error: openai.APIStatusError) -> str:
    """The server's own words, without the SDK's ``Error code: …``."""
    body: object = error.body
    if isinstance(body, dict):
        message = cast("dict[object, object]", body).get("message")
        if isinstance(message, str):
            return message
    return body if isinstance(body, str) else ""


def one_line(text: str, secrets: Sequence[str]) -> str:
    """A server's own words, fit for a message: on one line, cut to a bearable length, ``secrets`` left out."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "[key]")
    text = " ".join(text.split())
    return text if len(text) <= _DETAIL else text[: _DETAIL - 1] + "…"


def in_plain_words(error: BaseException) -> str:
    """Why a connection failed: the innermost cause, which SDK, httpx and anyio have each wrapped."""
    inner = error
    while True:
        if isinstance(inner, BaseExceptionGroup):  # one entry for each address that was tried
            inner = cast("BaseExceptionGroup[BaseException]", inner).exceptions[0]
            continue
        deeper = inner.__cause__ or inner.__context__
        if deeper is None:
            break
        inner = deeper
    if isinstance(inner, ConnectionRefusedError):
        return "connection refused"
    if isinstance(inner, socket.gaierror):
        return "the host name is not known"
    if isinstance(inner, ssl.SSLError):
        return f"TLS failed ({inner.reason or 'handshake'})"
    if isinstance(inner, ConnectionResetError):
        return "connection reset"
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror.lower()
    return str(inner) or type(inner).__name__


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from OpenAI's ``retry-after-ms`` or either form of RFC 9110's ``retry-after``; never negative."""
    header, unit = headers.get("retry-after-ms"), 1e-3
    if header is None:
        header, unit = headers.get("retry-after"), 1.0
    if header is None:
        return None
    try:
        seconds = float(header) * unit
    except ValueError:
        parsed = email.utils.parsedate_tz(header)
        if parsed is None:
            return None
        seconds = email.utils.mktime_tz(parsed) - time.time()
    return max(0.0, seconds) if math.isfinite(seconds) else None
