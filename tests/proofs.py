"""Which tests of a project run for which choice: a new choice adds its own tests, once.

docs/decisions/0009-whole-suites.md gives the reasons. `make test-all` runs everything for all.
"""

from dataclasses import replace

from combinations import PROVIDERS, SERVICES, Combination

Parts = tuple[str, str, str]

# All tests. The first is the default project, which its own ci.yml tests in test_newcomer.py.
DEFAULT: Parts = ("sqlite", "memory", "api_key")
RICHEST: Parts = ("postgres", "redis", "basic")
# With these two, any two choices of a database, a limiter and a log-in meet.
OTHERS: frozenset[Parts] = frozenset(
    {
        ("sqlite", "redis", "api_key"),
        ("sqlite", "database", "basic"),
        ("postgres", "memory", "basic"),
        ("postgres", "database", "api_key"),
    }
)
CHOSEN = {DEFAULT, RICHEST} | OTHERS

# What an implementation of the limiter has a part in: these run with each database.
_LIMITER = ("limiter", "limits", "tokens_and_slots")
# What a log-in has a part in: these run with each database.
_LOGIN = ("account", "admin_people", "auth", "cli", "serve")
# For the projects in OTHERS: of each choice, the tests that touch it (`test_….py`).
TESTS: dict[str, tuple[str, ...]] = {
    "sqlite": (),
    "postgres": (),
    "memory": (*_LIMITER, "lease", "memory"),
    "redis": (*_LIMITER, "redis"),
    "database": (*_LIMITER, "database_limits", "replicas", "shared"),
    "api_key": (*_LOGIN, "key_form", "keys"),
    "basic": (*_LOGIN, "basic", "login_flood", "turns"),
}


def parts_of(service: Combination) -> Parts:
    """Return the database, the limiter and the log-in."""
    return service.database, service.limiter, service.auth


def touching_files(service: Combination) -> set[str]:
    """Name the test files that touch the choices of a service; a project has some of them."""
    return {f"test_{name}.py" for choice in parts_of(service) for name in TESTS[choice]}


def with_all_providers(service: Combination) -> Combination:
    """Return the service with every provider: its tests are the most that a project can have."""
    return replace(service, providers=PROVIDERS)


def service_of(parts: Parts) -> Combination:
    """Return the service that is made of these parts."""
    return next(service for service in SERVICES if parts_of(service) == parts)
