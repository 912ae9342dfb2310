"""What an actor class takes, looked at once per class: a supervisor may be given thousands of specs of a few classes.

``inspect`` takes longer for one signature than the kernel does to start the actor.
"""

from __future__ import annotations

import inspect
from inspect import Parameter
from weakref import WeakKeyDictionary


class Parameters:
    """The parameters of one class's ``__init__``."""

    def __init__(self, actor: type) -> None:
        self.signature = inspect.signature(actor)
        """For the last word, and for the text of the error."""
        parameters = list(self.signature.parameters.values())
        self._plain = all(p.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY) for p in parameters)
        self._positional = tuple(p.name for p in parameters if p.kind is Parameter.POSITIONAL_OR_KEYWORD)
        self._names = frozenset(p.name for p in parameters)
        self._required = frozenset(p.name for p in parameters if p.default is Parameter.empty)

    def obviously_fit(self, args: tuple[object, ...], kwargs: dict[str, object]) -> bool:
        """Whether these arguments fit; false also where only ``signature.bind`` can tell."""
        if not self._plain or len(args) > len(self._positional):
            return False
        by_position = self._positional[: len(args)]
        given = kwargs.keys()
        return given <= self._names and given.isdisjoint(by_position) and self._required <= {*by_position, *given}


_known: WeakKeyDictionary[type, Parameters] = WeakKeyDictionary()


def parameters_of(actor: type) -> Parameters:
    """The parameters of an actor class. Raises ValueError or TypeError where it has no signature, as ``inspect``."""
    found = _known.get(actor)
    if found is None:
        found = _known[actor] = Parameters(actor)
    return found
