"""Ends a request with the answer that its first one got."""

from fastapi import Request, Response


class Replay(Exception):
    """Not an error: the answer to a request that was answered before is `response`."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


async def send_replay(_: Request, replay: Exception) -> Response:
    """The handler that sends it."""
    assert isinstance(replay, Replay)
    return replay.response
