"""Answers a request with the stored answer of an earlier one."""

from fastapi import Request, Response


class Replay(Exception):
    """Not an error: ends a route with the stored `response`."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


async def send_replay(_: Request, replay: Exception) -> Response:
    """The exception handler of `Replay`."""
    assert isinstance(replay, Replay)
    return replay.response
