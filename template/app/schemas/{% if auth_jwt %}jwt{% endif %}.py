"""Bodies of `/auth/…`. Unknown fields are refused: no body names a role, a plan or a user."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from gateway.accounts.principals import Role
from gateway.schemas.base import NO_CONTROL, Name, RequestBody, Time

# NIST SP 800-63B-4, section 3.1.1.2, asks for 15 without a second factor; a hash reads them all.
MIN_PASSWORD, MAX_PASSWORD = 12, 256


def _email(given: str) -> str:
    return given.strip().lower()


Email = Annotated[
    str,
    StringConstraints(min_length=3, max_length=254, pattern=NO_CONTROL),
    AfterValidator(_email),
]
Password = Annotated[str, Field(min_length=1, max_length=MAX_PASSWORD)]
NewPassword = Annotated[str, Field(min_length=MIN_PASSWORD, max_length=MAX_PASSWORD)]
Token = Annotated[str, Field(min_length=1, max_length=2000)]


class LoginRequest(RequestBody):
    email: Email
    password: Password


class RefreshRequest(RequestBody):
    refresh_token: Token


class PasswordRequest(RequestBody):
    current: Password
    new: NewPassword


class InvitationRequest(RequestBody):
    """Without a `plan`, the first one of plans.toml."""

    email: Email
    role: Annotated[Role, Field(strict=False)] = Role.USER
    plan: Name | None = None


class AcceptRequest(RequestBody):
    token: Token
    password: NewPassword


class VerifyRequest(RequestBody):
    token: Token
    password: Password


class ResetRequest(RequestBody):
    email: Email


class RegisterRequest(RequestBody):
    email: Email
    password: NewPassword


class Tokens(BaseModel):
    """`expires_in` is the life of the access token in seconds."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105
    expires_in: int
    refresh_token: str


class Invitation(BaseModel):
    """`link` works once. It is sent to the address as well where mail is set up."""

    email: str
    link: str
    expires_at: Time
    sent: bool


class Accepted(BaseModel):
    message: str
