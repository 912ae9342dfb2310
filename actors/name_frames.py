"""What processes say to each other about names: claims and news go up to the authority, the truth comes down from it.

A node claims a name before it starts its holder, and says of every holder of its own whether somebody lives there. The
authority decides, and tells all nodes of each change, in order; so what a node knows is what the authority knew a
moment ago. A node that has nodes of its own passes both on.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from palmette.actors.exits import Reason

Presence = Literal["starting", "up", "down", "free"]
"""Whether somebody lives at an address that has a name: is about to, does, does not at present, or never again."""


class Claim(msgspec.Struct, frozen=True, array_like=True, tag="claim"):
    """Up: somebody is about to live at ``path``, and to be called ``name``."""

    id: int
    name: str
    path: str


class Claimed(msgspec.Struct, frozen=True, array_like=True, tag="claimed"):
    """Down: the answer, behind what it has changed. ``refusal`` says why not, if so."""

    id: int
    refusal: str = ""


class Holder(msgspec.Struct, frozen=True, array_like=True, tag="holder"):
    """Up: what has become of an address that has a name, is in a group, or subscribes."""

    path: str
    presence: Presence
    reason: Reason


class Lost(msgspec.Struct, frozen=True, array_like=True, tag="lost"):
    """Up: a process is gone, and with it all that lived below its own actor at ``path``."""

    path: str
    reason: Reason


class Named(msgspec.Struct, frozen=True, array_like=True, tag="named"):
    """Down: ``path`` has ``name``; ``up`` says whether somebody lives there."""

    name: str
    path: str
    up: bool


class Unnamed(msgspec.Struct, frozen=True, array_like=True, tag="unnamed"):
    """Down: nobody has ``name`` any more."""

    name: str


NameFrame = Claim | Claimed | Holder | Lost | Named | Unnamed
