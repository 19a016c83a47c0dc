"""The bodies of `/auth/session` and `/auth/logout`."""

from pydantic import BaseModel

from gateway.schemas.base import RequestBody, Time


class LogOut(RequestBody):
    """What a log-out ends: the session of this browser, or all of its user."""

    all: bool = False


class Session(BaseModel):
    """The session of this browser."""

    user_id: str
    expires_at: Time
    csrf_token: str
