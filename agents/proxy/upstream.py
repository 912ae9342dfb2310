"""The proxy's own line to the model's server. The real key is here and nowhere else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

import msgspec

from palmette.agents.boundary import public_url
from palmette.agents.endpoint import api_key, is_local
from palmette.agents.errors import MissingExtra, ModelUnavailable
from palmette.agents.openai_wire import Object
from palmette.agents.proxy.records import Upstream

if TYPE_CHECKING:
    import httpx2


class Line:
    """Connections to ``upstream``.

    Raises:
        NoApiKey, ConfigurationError: see :func:`~palmette.agents.endpoint.api_key`.
        MissingExtra: the openai package is not installed.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._key = api_key(upstream.base_url, upstream.api_key_env)
        self._base_url = upstream.base_url.rstrip("/")
        self._seconds = upstream.seconds
        try:
            import openai
        except ModuleNotFoundError:
            raise MissingExtra("openai", "proxy") from None
        # The SDK's defaults for connections, without the SDK: what programs send is passed on as it is.
        self._http = openai.DefaultAsyncHttpxClient(
            trust_env=not is_local(upstream.base_url), timeout=upstream.seconds, follow_redirects=False
        )

    def __repr__(self) -> str:
        return f"Line({public_url(self._base_url)})"

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def without_key(self, text: str) -> str:
        """``text`` with the key cut out: servers that refuse one like to quote it."""
        return text.replace(self._key, "[key]") if self._key else text

    @contextlib.asynccontextmanager
    async def ask(self, method: str, path: str, body: Object | None = None) -> AsyncGenerator[httpx2.Response]:
        """One request; its answer is read within the block, and all of it within the upstream's ``seconds``.

        Raises:
            ModelUnavailable: no answer came, or it broke off.
        """
        import httpx2

        where = f"the model endpoint {public_url(self._base_url)}"
        request = self._http.build_request(
            method,
            f"{self._base_url}/{path}",
            content=None if body is None else msgspec.json.encode(body),
            headers={"content-type": "application/json"}
            | ({"authorization": f"Bearer {self._key}"} if self._key else {}),
        )
        clock = asyncio.timeout(self._seconds)
        try:
            async with clock:
                answer = await self._http.send(request, stream=True)
                try:
                    yield answer
                finally:
                    await answer.aclose()
        except httpx2.HTTPError as error:
            why = self.without_key(str(error)) or type(error).__name__
            raise ModelUnavailable(f"cannot reach {where}: {why}") from None
        except TimeoutError:
            if not clock.expired():
                raise
            raise ModelUnavailable(f"{where} did not answer within {self._seconds:g} s") from None
