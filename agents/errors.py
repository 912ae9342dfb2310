"""What can go wrong between an agent, its tools and its model.

::

    AgentError
    ├── ModelError
    │   ├── ModelUnavailable   unreachable, overloaded, 408/409/429/5xx, timed out: infrastructure, worth a restart
    │   └── ModelRefused       the endpoint understood and says no (400/401/403/404, …): asking again changes nothing
    │       ├── RequestRefused it is this request that it does not like; another may pass
    │       ├── ContextFull    the conversation outgrew the model's context window
    │       └── BudgetSpent    what may be spent on the model is spent
    ├── ToolError              goes back to the model as the tool's result
    │   ├── BadArguments       the model's arguments do not fit the tool
    │   └── ToolFailed         the tool ran and has bad news
    └── ConfigurationError     a setting is missing or wrong; nothing was started
        ├── NoApiKey           the environment variable for the key is not set
        ├── MissingExtra       an optional dependency is not installed
        ├── UnknownAgent       no agent of this name
        └── UnknownModel       no model of this name

Nobody here retries. ``retryable`` is advice to the supervisor that restarts whoever let the error through, and
``retry_after`` is a floor for its backoff.
"""

from __future__ import annotations


class AgentError(Exception):
    """Everything that the agents' folder raises on purpose. The message never holds a secret."""

    retryable: bool = False


class ModelError(AgentError):
    """No completion came."""

    retry_after: float | None = None


class ModelUnavailable(ModelError):
    """The endpoint cannot be reached, is overloaded, or did not answer in time.

    ``retry_after``: seconds that the endpoint asks to be left alone; ``None`` when it did not say. ``overloaded``: it
    said that it has too much to do.
    """

    retryable = True

    def __init__(self, message: str, *, retry_after: float | None = None, overloaded: bool = False) -> None:
        self.retry_after = retry_after
        self.overloaded = overloaded
        super().__init__(message)


class ModelRefused(ModelError):
    """The endpoint answered, and the answer is no: bad key, unknown model, bad request, quota used up."""


class RequestRefused(ModelRefused):
    """It is this request that the endpoint does not like: its form, or what it says. Another may pass."""


class ContextFull(ModelRefused):
    """The conversation is longer than the model's context window."""


class BudgetSpent(ModelRefused):
    """What may be spent on the model is spent (see :class:`~palmette.agents.limiter.Limiter`). Nothing was asked."""


class ToolError(AgentError):
    """The message is what the model gets to see."""


class BadArguments(ToolError):
    """The model's arguments do not fit the tool's parameters."""


class ToolFailed(ToolError):
    """Raise it in a tool to tell the model that something ordinary went wrong, such as a file that is not there.

    Any other exception crashes the agent, and its supervisor decides.
    """


class ConfigurationError(AgentError):
    """A setting is missing or wrong. It is raised before anything is started."""


class NoApiKey(ConfigurationError):
    """The endpoint wants a key and the environment has none."""

    def __init__(self, variable: str, endpoint: str) -> None:
        self.variable = variable
        super().__init__(
            f"no API key for the model endpoint {endpoint}: set the environment variable {variable}, "
            f"or name a local endpoint with --base-url"
        )


class MissingExtra(ConfigurationError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"the package {package!r} is not installed; run: pip install 'palmette[{extra}]'")


class UnknownAgent(ConfigurationError):
    """No agent of this name; the message lists those that exist."""


class UnknownModel(ConfigurationError):
    """No model of this name; the message shows how one is written."""
