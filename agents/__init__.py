"""Agents: model clients, tools for models, and the harness that puts the two together.

>>> from palmette.agents import OpenAIClient, react, tool
>>> client = OpenAIClient("qwen3", base_url="http://127.0.0.1:8000/v1")
>>> transcript = await react("What is 6 times 7?", client.session("task-1", seed=0), [tool(multiply)])
>>> transcript.answer
'42'

The openai package is imported when an :class:`OpenAIClient` is built, not before.
"""

from palmette.agents.commands import Answer, Unreadable, parse_command
from palmette.agents.conversation import (
    Completion,
    Message,
    ModelClient,
    Session,
    Tokens,
    ToolCall,
    ToolSchema,
    Usage,
)
from palmette.agents.errors import (
    AgentError,
    BadArguments,
    BudgetSpent,
    ConfigurationError,
    ContextFull,
    MissingExtra,
    ModelError,
    ModelRefused,
    ModelUnavailable,
    NoApiKey,
    RequestRefused,
    ToolError,
    ToolFailed,
    UnknownAgent,
    UnknownModel,
)
from palmette.agents.names import AGENTS, MODELS, AgentName, ModelName, model_client, parse_agent, parse_model
from palmette.agents.openai_client import OpenAIClient
from palmette.agents.react import Dialect, ReactLimits, react
from palmette.agents.scripted import ScriptedClient, ScriptedSession, silent
from palmette.agents.tools import Tool, tool
from palmette.agents.transcript import Transcript, Turn

__all__ = [
    "AGENTS",
    "MODELS",
    "AgentError",
    "AgentName",
    "Answer",
    "BadArguments",
    "BudgetSpent",
    "Completion",
    "ConfigurationError",
    "ContextFull",
    "Dialect",
    "Message",
    "MissingExtra",
    "ModelClient",
    "ModelError",
    "ModelName",
    "ModelRefused",
    "ModelUnavailable",
    "NoApiKey",
    "OpenAIClient",
    "ReactLimits",
    "RequestRefused",
    "ScriptedClient",
    "ScriptedSession",
    "Session",
    "Tokens",
    "Tool",
    "ToolCall",
    "ToolError",
    "ToolFailed",
    "ToolSchema",
    "Transcript",
    "Turn",
    "UnknownAgent",
    "UnknownModel",
    "Unreadable",
    "Usage",
    "model_client",
    "parse_agent",
    "parse_command",
    "parse_model",
    "react",
    "silent",
    "tool",
]
