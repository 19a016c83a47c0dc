"""Server-sent events, as the WHATWG defines them.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from gateway.providers.base import BadAnswer

EVENT_BYTES = 8 * 1024 * 1024
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
PREFIX = b"data: "

Event = tuple[str, bytes]
"""The name of an event, or an empty text, and its data in UTF-8."""


class EventParser:
    """Parses a stream, in blocks that may end anywhere, into complete events.

    Drops events without data, and one that is incomplete at the end of the stream. The work is
    linear in the bytes.
    """

    def __init__(self) -> None:
        self._begun = False
        self._is_between = False
        self._after_return = False
        # The pieces of an incomplete line.
        self._pieces: list[bytes] = []
        # The name, the lines of data and the size of an incomplete event.
        self._name = ""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, block: bytes) -> list[Event]:
        """The events that `block` completes. Raises `BadAnswer` for an event that is too long."""
        if self._after_return or b"\r" in block:
            block = self._with_newlines(block)
        lines = block.split(b"\n")
        if self._is_between and len(lines) == 3 and not lines[1] and not lines[2]:
            # Fast path for the usual form: one event in a block, with one line of data.
            line = lines[0]
            if line.startswith(PREFIX) and 6 < len(line) <= EVENT_BYTES:
                return [("", line[6:])]
        return self._read(lines, len(block))

    def _read(self, lines: list[bytes], size: int) -> list[Event]:
        """The events that a block of `lines` completes. The last line is incomplete."""
        goes_on = len(lines) == 1
        self._pieces.append(lines.pop() if goes_on else lines[0])
        if lines:
            lines[0] = b"".join(self._pieces)
            self._pieces = [lines.pop()]
        events = self._events(lines)
        received = pending = self._size + size
        if not goes_on and (events or not self._data):
            # Count only the rest of this block, so that no byte counts twice.
            pending = len(self._pieces[0]) + sum(map(len, self._data))
        # Return the events before one that is too long first.
        largest = max((len(data) for _, data in events), default=pending)
        if received > EVENT_BYTES and largest > EVENT_BYTES:
            raise BadAnswer("an event of the stream is too long")
        self._size = pending
        self._is_between = not (pending or self._data or self._name)
        return events

    def _events(self, lines: list[bytes]) -> list[Event]:
        """The events that `lines` complete."""
        if lines and not self._begun:
            self._begun = True
            lines[0] = lines[0].removeprefix(BYTE_ORDER_MARK)
        events, data = [], self._data
        for line in lines:
            if line.startswith(PREFIX):
                data.append(line[6:])
            elif line:
                self._field(line)
            else:
                if data:
                    if whole := b"\n".join(data):
                        events.append((self._name, whole))
                    data.clear()
                self._name = ""
        return events

    def _field(self, line: bytes) -> None:
        """Read any line that does not start with `data: `. A comment has an empty field name."""
        field, _, value = line.partition(b":")
        if field == b"data":
            self._data.append(value.removeprefix(b" "))
        elif field == b"event":
            self._name = value.removeprefix(b" ").decode(errors="replace")

    def _with_newlines(self, block: bytes) -> bytes:
        """`block` with LF line ends. Lines may end in CR, LF or CRLF, also across two blocks."""
        if block and self._after_return:
            self._after_return = False
            block = block.removeprefix(b"\n")
        if b"\r" in block:
            self._after_return = block.endswith(b"\r")
            block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return block
