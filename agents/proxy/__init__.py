"""The recording proxy: programs that speak OpenAI get an address and a token of their own, and every call is kept.

>>> child(Proxy, Upstream("https://api.openai.com/v1"), name="model-proxy", limiter="openai-limiter")
>>> async with ProxyLine.open(system.whereis("model-proxy", Proxy), "worker") as line:
...     program = await machine.open(["my-agent"], env=line.environment)
...     async for call in line.calls(): ...
"""

from palmette.agents.proxy.actor import Proxy
from palmette.agents.proxy.line import ProxyLine
from palmette.agents.proxy.records import CallEnded, CallWanted, Events, ProxySession, ToolGivenUp, ToolWanted, Upstream

__all__ = [
    "CallEnded",
    "CallWanted",
    "Events",
    "Proxy",
    "ProxyLine",
    "ProxySession",
    "ToolGivenUp",
    "ToolWanted",
    "Upstream",
]
