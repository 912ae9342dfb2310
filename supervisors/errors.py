"""What can be wrong with a child specification or an order to a supervisor.

::

    PalmetteError
    ├── BadSpec            a child spec or a supervisor's options make no sense; found before anything starts
    └── Refused
        ├── NoSuchChild    the supervisor has no child of that name
        ├── ChildExists    … or has one already
        ├── TooManyChildren  a dynamic supervisor is at ``max_children``
        └── StartRefused   ``start_child`` or ``restart_child`` could not start it
            └── StartDeclined  … as it raised ``Decline``
"""

from __future__ import annotations

from palmette.actors.errors import PalmetteError, Refused


class BadSpec(PalmetteError, ValueError):
    """Names the field, the value, and what would be right."""


class NoSuchChild(Refused):
    """There is no child of that name."""


class ChildExists(Refused):
    """There is a child of that name already."""


class TooManyChildren(Refused):
    """The dynamic supervisor is full; wait for a child to end, or raise ``max_children``."""


class StartRefused(Refused):
    """The child could not start; the text says why."""


class StartDeclined(StartRefused):
    """The child declined to start, which is no failure: a static supervisor keeps its spec, if it is not temporary."""
