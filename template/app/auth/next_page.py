"""Where a browser goes after it has signed in or out: pages of this list, and nowhere else."""

SIGN_IN = "/auth/sign-in"
# Your own pages go here, as paths of this service.
PAGES = frozenset({"/", "/docs", SIGN_IN})


def next_page(given: str | None) -> str:
    """The path `given` if it is a page of this service, else the page to sign in."""
    return given if given in PAGES else SIGN_IN
