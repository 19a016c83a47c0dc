"""`OAUTH_ALLOWED`: which accounts of providers may make a user of this service."""

import re
from typing import NamedTuple

ORGANISATION = re.compile(r"github:([A-Za-z0-9](?:-?[A-Za-z0-9]){0,38})")
DOMAIN = re.compile(r"[\w-]+(\.[\w-]+)+")
ACCOUNT = re.compile(r"[^@\s:,]+@[\w-]+(\.[\w-]+)+")
FORM = "example.com, jane@example.com or github:ORGANISATION"


class Allowed(NamedTuple):
    """Domains of accounts, whole e-mail addresses, and organisations of GitHub; lower case."""

    domains: frozenset[str]
    accounts: frozenset[str]
    organisations: frozenset[str]

    def admits(self, email: str, domain: str, organisations: frozenset[str]) -> bool:
        """Whether the list has a verified address, the domain, or one of the organisations."""
        return (
            email.lower() in self.accounts
            or domain.lower() in self.domains
            or not self.organisations.isdisjoint(organisations)
        )


def domain_of(email: str) -> str:
    """The domain of an e-mail address."""
    return email.rpartition("@")[2]


def parse_allowed(text: str) -> Allowed:
    """The entries of a list with commas. Raises `ValueError`. A domain is without subdomains."""
    given = [item.strip().lower() for item in text.split(",") if item.strip()]
    found: dict[str, set[str]] = {"domains": set(), "accounts": set(), "organisations": set()}
    for item in given:
        if organisation := ORGANISATION.fullmatch(item):
            found["organisations"].add(organisation[1])
        elif DOMAIN.fullmatch(item):
            found["domains"].add(item)
        elif ACCOUNT.fullmatch(item):
            found["accounts"].add(item)
        else:
            raise ValueError(f"must have entries such as {FORM}, with commas between")
    return Allowed(**{name: frozenset(items) for name, items in found.items()})
