"""GitHub, which speaks OAuth and not OpenID Connect: its API tells who signed in.

https://docs.github.com/apps/oauth-apps/building-oauth-apps/authorizing-oauth-apps
"""

from collections.abc import Collection
from typing import Any
from urllib.parse import quote

from gateway.accounts.admission import domain_of
from gateway.accounts.identities import Profile
from gateway.accounts.sign_in.provider import Attempt, Client, authorization_address, fetch_token
from gateway.errors import Forbidden, ProviderError
from gateway.http.web import get_json

SITE = "https://github.com"
API = "https://api.github.com"


class GitHub:
    """Reads the account's id, and only an e-mail address that is primary and verified."""

    name, label = "github", "GitHub"

    def __init__(self, client: Client, organisations: Collection[str]) -> None:
        self._client = client
        self._organisations = organisations

    async def address(self, attempt: Attempt) -> str:
        scope = "read:user user:email" + (" read:org" if self._organisations else "")
        return authorization_address(f"{SITE}/login/oauth/authorize", self._client, attempt, scope)

    async def profile(self, attempt: Attempt, code: str) -> Profile:
        endpoint = f"{SITE}/login/oauth/access_token"
        answer = await fetch_token(endpoint, self._client, attempt, code, in_body=True)
        token = answer["access_token"]
        user = await get_json(f"{API}/user", token)
        emails = await get_json(f"{API}/user/emails?per_page=100", token)
        # The number stays when a login is renamed, and given to another person.
        number = user.get("id") if isinstance(user, dict) else None
        if not isinstance(number, int) or not isinstance(emails, list):
            raise ProviderError("GitHub's answer has no account. Try again later.")
        member_of = [name for name in self._organisations if await self._is_member(name, token)]
        email = _primary(emails)
        return Profile("github", str(number), email, domain_of(email), frozenset(member_of))

    async def _is_member(self, organisation: str, token: str) -> bool:
        address = f"{API}/user/memberships/orgs/{quote(organisation, safe='')}"
        found = await get_json(address, token, absent=True)
        return isinstance(found, dict) and found.get("state") == "active"


def _primary(emails: list[Any]) -> str:
    """The primary address, if it is verified. Raises `Forbidden`."""
    for each in emails:
        is_usable = isinstance(each, dict) and isinstance(each.get("email"), str)
        if is_usable and each.get("primary") is True and each.get("verified") is True:
            return str(each["email"])
    raise Forbidden("GitHub knows no verified primary e-mail address of yours: verify it there.")
