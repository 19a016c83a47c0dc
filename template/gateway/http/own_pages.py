"""Refuses what pages of other sites make a browser send.

A browser adds cookies and stored passwords to the requests of any page. So whatever changes
something with them must come from a page of this service, by `Origin` and `Sec-Fetch-Site`.
https://cheatsheetseries.owasp.org/cheatsheets/Cross-Site_Request_Forgery_Prevention_Cheat_Sheet.html
"""

from collections.abc import Mapping
from urllib.parse import urlsplit

from gateway.addresses import EVERY
from gateway.errors import Forbidden
from gateway.http.cors import asks_before

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class OwnPages:
    """Tells the service's own pages and programs from pages of other sites."""

    def __init__(self, public_url: str = "", shared_with: frozenset[str] = frozenset()) -> None:
        self._public_host = urlsplit(public_url).netloc
        self._shared_with = shared_with

    def require_own(self, headers: Mapping[str, str]) -> None:
        """Raise `Forbidden` for a request that a page of another site sent."""
        if self._is_foreign(headers):
            raise Forbidden("Requests that change something are taken from this site only.")

    def require_own_or_shared(self, method: str, headers: Mapping[str, str]) -> None:
        """As `require_own`, but pass what pages of `CORS_ORIGINS` send after they have asked.

        A browser adds no stored password to a request that it asks about before, as for JSON:
        such a request bears a password that the page knows itself.
        """
        origin = headers.get("origin")
        is_shared = origin is not None and not self._shared_with.isdisjoint({origin, EVERY})
        if not (is_shared and asks_before(method, headers)):
            self.require_own(headers)

    def _is_foreign(self, headers: Mapping[str, str]) -> bool:
        site = headers.get("sec-fetch-site", "none")
        origin = headers.get("origin")
        own = {host for host in (headers.get("host"), self._public_host) if host}
        # Without a host it is "null": a page that hides where it is from.
        foreign = origin is not None and origin.partition("://")[2] not in own
        return foreign or site not in {"none", "same-origin"}
