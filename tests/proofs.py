"""Which tests of a project run for which choice: a new choice adds its own tests, once.

docs/decisions/0009-whole-suites.md gives the reasons. `make test-all` runs everything for all.
"""

from dataclasses import replace

from combinations import PROVIDERS, SERVICES, Combination, covering, met_in

Parts = tuple[str, str, str]

# All tests. The first is the default project, which its own ci.yml tests in test_newcomer.py.
DEFAULT: Parts = ("sqlite", "memory", "api_key")
RICHEST: Parts = ("postgres", "redis", "basic")


def parts_of(service: Combination) -> Parts:
    """Return the database, the limiter and the log-in."""
    return service.database, service.limiter, service.auth


# The services that run: few, in which any two choices of these three meet.
CHOSEN = covering([parts_of(service) for service in SERVICES], met_in, (DEFAULT, RICHEST))
OTHERS = CHOSEN[2:]

# What every route does for a user of a log-in, and its pages: these run with one database.
_ROUTES = (
    *("account", "admin_people", "canaries", "cli", "mass_assignment", "other_users", "roles"),
    *("sessions", "team"),
)
ONCE: dict[str, tuple[str, ...]] = {
    "jwt": (*_ROUTES, "link_browser", "link_page", "login_flood"),
    "oauth": (*_ROUTES, "key_form", "oauth_browser", "oauth_providers"),
    "supabase": _ROUTES,
}
# For the projects in OTHERS, the tests that touch a choice (`test_….py`): of databases, of limiters
# and of log-ins. A log-in may have the name of a database.
TESTS: tuple[dict[str, tuple[str, ...]], ...] = (
    {
        "sqlite": ("backup",),
        "postgres": ("migrations_data", "pooler", "postgres", "silence"),
        "supabase": (
            *("migrations", "migrations_data", "pooler", "postgres", "retention", "row_security"),
            *("search", "sessions", "silence"),
        ),
    },
    {
        # Only the third limits in the database; a team's calls pass the limiter and the ledger.
        "memory": ("lease", "memory", "team_budgets"),
        "redis": ("redis", "team_budgets"),
        "database": (
            *("database_limits", "limiter", "limits", "replicas", "shared", "team_budgets"),
            "tokens_and_slots",
        ),
    },
    {
        "api_key": ("auth", "key_sessions", "keys"),
        "basic": ("auth", "basic"),
        "jwt": ("auth", "jwt", "jwt_attacks", "links"),
        "supabase": ("auth", "supabase_auth"),
        "oauth": ("auth", "key_sessions", "keys", "oauth_admission", "oauth_flow"),
    },
)


def touching_files(parts: Parts) -> set[str]:
    """Name the test files that one of the OTHERS runs; a project has some of them.

    They touch a choice that has not met the service's database in one before it.
    """
    before = CHOSEN[: CHOSEN.index(parts)]
    met = set().union(*map(met_in, before))
    seen = {answer for each in before for answer in enumerate(each)}
    database, limiter, login = enumerate(parts)
    new = [each for each in (limiter, login) if frozenset((database, each)) not in met]
    new += {database} - seen
    names = {name for place, choice in new for name in TESTS[place][choice]}
    names |= set(() if login in seen else ONCE[login[1]])
    return {f"test_{name}.py" for name in names}


def with_all_providers(service: Combination) -> Combination:
    """Return the service with every provider: its tests are the most that a project can have."""
    return replace(service, providers=PROVIDERS)


def service_of(parts: Parts) -> Combination:
    """Return the service that is made of these parts."""
    return next(service for service in SERVICES if parts_of(service) == parts)
