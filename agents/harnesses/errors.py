"""What can go wrong with a program that drives a model.

::

    AgentError
    └── HarnessError      it did what it should not have done
        ├── HarnessDied   its process ended
        └── HarnessHung   it does not answer any more

A failed call of the model is none of these: it comes out as the :class:`~palmette.agents.errors.ModelError` that it is.
"""

from __future__ import annotations

from palmette.agents.errors import AgentError


class HarnessError(AgentError):
    """A program that drives a model failed. The message never holds its token."""


class HarnessDied(HarnessError):
    """Its process ended, by itself or by another's hand."""


class HarnessHung(HarnessError):
    """Its process lives and does not answer."""
