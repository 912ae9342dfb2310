"""Where a model is served, and the key for it: read once from the environment, held by whoever sends the requests."""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import urlsplit

from palmette.agents.boundary import public_url
from palmette.agents.errors import ConfigurationError, NoApiKey


def is_local(base_url: str) -> bool:
    """Whether ``base_url`` is on this host's loopback, which no proxy from the environment can reach."""
    host = urlsplit(base_url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def api_key(base_url: str, variable: str) -> str:
    """The key in the environment ``variable``; empty for an endpoint on loopback that needs none.

    Raises:
        NoApiKey: it is not set.
        ConfigurationError: ``base_url`` is no http(s) address, or what is set cannot be a key.
    """
    parts = urlsplit(base_url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigurationError(
            f"{public_url(base_url)!r} is no model endpoint; write it like http://127.0.0.1:8000/v1"
        )
    key = os.environ.get(variable, "").strip()
    if not key and not is_local(base_url):
        raise NoApiKey(variable, public_url(base_url))
    if not (key.isascii() and key.isprintable()):  # the SDK's complaint would quote it
        raise ConfigurationError(
            f"the environment variable {variable} holds characters that no API key has; set it again"
        )
    return key
