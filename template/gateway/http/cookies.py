"""The cookie of a browser session, and the token against requests of other sites' pages."""

import hashlib
import hmac
from collections.abc import Mapping
from typing import NamedTuple

COOKIE = "session"
CSRF_HEADER = "x-csrf-token"


class CookieRules(NamedTuple):
    """How browsers keep and send this service's cookies.

    `is_framed`: pages of another site show this service in a frame. Browsers then send only
    cookies with SameSite=None, and keep them for that site alone if they are partitioned.
    https://developer.mozilla.org/docs/Web/Privacy/Guides/Privacy_sandbox/Partitioned_cookies
    """

    is_secure: bool
    is_framed: bool

    def cookie(self, name: str, value: str, seconds: int, path: str = "/") -> str:
        """The header `Set-Cookie`; with zero `seconds`, it removes the cookie."""
        given = [f"{name}={value}", f"Max-Age={seconds}", f"Path={path}", "HttpOnly"]
        if self.is_secure or self.is_framed:
            given.append("Secure")
        given += ["SameSite=None", "Partitioned"] if self.is_framed else ["SameSite=Lax"]
        return "; ".join(given)


def cookie_of(headers: Mapping[str, str], name: str = COOKIE) -> str | None:
    """The value of a request's cookie, the first if there are several; None without one."""
    for pair in headers.get("cookie", "").split(";"):
        given, _, value = pair.strip().partition("=")
        if given == name:
            return value
    return None


def csrf_token(token: str) -> str:
    """The value of `X-CSRF-Token` for a session. Only pages of this service can read it."""
    return hmac.digest(token.encode(), b"csrf", hashlib.sha256).hex()


def is_csrf_token(given: str, token: str) -> bool:
    """Whether `given` belongs to the session of `token`."""
    return hmac.compare_digest(given.encode(), csrf_token(token).encode())
