"""The limiter: what all agents of a system together ask of one model provider, as an actor.

>>> child(Limiter, LimiterSettings(requests_per_minute=500), name="openai-limiter")
>>> client = LimitedClient(OpenAIClient("gpt-5"), system.whereis("openai-limiter", Limiter))
"""

from palmette.agents.limiter.actor import Limiter
from palmette.agents.limiter.client import LimitedClient, permit
from palmette.agents.limiter.records import Denied, LimiterSettings, LimiterStatistics, Report

__all__ = ["Denied", "LimitedClient", "Limiter", "LimiterSettings", "LimiterStatistics", "Report", "permit"]
