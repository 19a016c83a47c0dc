"""Server-sent events, as the WHATWG defines them.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from gateway.providers.base import BadAnswer

EVENT_BYTES = 8 * 1024 * 1024
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
PREFIX = b"data: "

Event = tuple[str, bytes]
"""The name of an event, empty where it has none, and its data in UTF-8."""


class EventParser:
    """Takes a stream in blocks that are cut anywhere, and gives the events that are complete.

    An event without data is none, and one that is not complete when the stream ends is lost. The
    work is linear in the bytes.
    """

    def __init__(self) -> None:
        self._begun = False
        self._is_between = False
        self._after_return = False
        # A line that is not complete, as it came.
        self._pieces: list[bytes] = []
        # Of the event that is not complete: its name, its lines of data, and its bytes.
        self._name = ""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, block: bytes) -> list[Event]:
        """The events that `block` completes. Raises `BadAnswer` for one that is too long."""
        if self._after_return or b"\r" in block:
            block = self._with_newlines(block)
        lines = block.split(b"\n")
        if self._is_between and len(lines) == 3 and not lines[1] and not lines[2]:
            # The usual form needs no look at each line: one line of data in a block of its own.
            line = lines[0]
            if line.startswith(PREFIX) and 6 < len(line) <= EVENT_BYTES:
                return [("", line[6:])]
        return self._read(lines, len(block))

    def _read(self, lines: list[bytes], size: int) -> list[Event]:
        """The events that a block of `lines`, the last of which goes on, completes."""
        goes_on = len(lines) == 1
        self._pieces.append(lines.pop() if goes_on else lines[0])
        if lines:
            lines[0] = b"".join(self._pieces)
            self._pieces = [lines.pop()]
        events = self._events(lines)
        received = pending = self._size + size
        if not goes_on and (events or not self._data):
            # Of this block alone, so that nothing is counted twice.
            pending = len(self._pieces[0]) + sum(map(len, self._data))
        if received > EVENT_BYTES:
            # What came before an event that is too long is told first.
            _check_sizes([len(data) for _, data in events] or [pending])
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
        """Read a line of no usual form; a comment has a field without a name."""
        field, _, value = line.partition(b":")
        if field == b"data":
            self._data.append(value.removeprefix(b" "))
        elif field == b"event":
            self._name = value.removeprefix(b" ").decode(errors="replace")

    def _with_newlines(self, block: bytes) -> bytes:
        """`block` with a newline for each end of a line: CRLF, which may be cut, CR or LF."""
        if block and self._after_return:
            self._after_return = False
            block = block.removeprefix(b"\n")
        if b"\r" in block:
            self._after_return = block.endswith(b"\r")
            block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return block


def _check_sizes(sizes: list[int]) -> None:
    if max(sizes) > EVENT_BYTES:
        raise BadAnswer("an event of the stream is too long")
