"""Server-sent events, as models' answers are streamed: bytes in, the data of each event out.

After the WHATWG's HTML standard, section 9.2.6, as far as models' servers use it.
"""

from __future__ import annotations

from palmette.agents.errors import ModelUnavailable

MAX_EVENT = 16 << 20
"""Bytes of one event; more is no event but a broken stream."""


class EventReader:
    """Cuts a stream of bytes into events.

    >>> reader = EventReader()
    >>> reader.feed(b'data: {"a":1}\\n\\nda'), reader.feed(b"ta: [DONE]\\r\\n\\r\\n")
    (['{"a":1}'], ['[DONE]'])
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[str] = []

    def feed(self, piece: bytes) -> list[str]:
        """The events that ``piece`` completes; comments and other fields are left out.

        Raises:
            ModelUnavailable: it is no stream of events.
        """
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > MAX_EVENT:
            raise ModelUnavailable(
                f"the model's answer is no stream of events: a line is longer than {MAX_EVENT} bytes"
            )
        events: list[str] = []
        for line in lines:
            text = line.removesuffix(b"\r").decode("utf-8", "replace")
            if not text:
                if self._data:
                    events.append("\n".join(self._data))
                    self._data = []
            elif text.startswith("data:"):
                self._data.append(text[5:].removeprefix(" "))
        return events
