"""The answer sets that are rendered and proven, one id each.

Database, limiter and authentication meet in every way, and so do database, limiter and host. Any
two values of two other questions meet (`test_questions.py` asserts it).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, cycle, product
from typing import Any, TypeVar

DATABASES = ("sqlite", "postgres", "supabase")
LIMITERS = ("memory", "redis", "database")
AUTHS = ("api_key", "basic", "jwt", "oauth", "supabase")
HOSTS = ("railway", "compose")
PROVIDERS = ("openai", "huggingface", "replicate")
PROVIDER_SETS = tuple(chosen for size in (1, 2, 3) for chosen in combinations(PROVIDERS, size))
TEAMS = (False, True)
LICENSES = ("MIT", "Apache-2.0", "proprietary")


@dataclass(frozen=True)
class Combination:
    """One answer to each question that has a fixed set of answers."""

    database: str
    limiter: str
    auth: str
    host: str
    providers: tuple[str, ...]
    team: bool
    license: str

    @property
    def answers(self) -> dict[str, Any]:
        """The answers, under the names of their questions."""
        return vars(self) | {"providers": list(self.providers)}

    def __str__(self) -> str:
        people = "team" if self.team else "alone"
        providers = "+".join(self.providers)
        where = (self.database, self.limiter, self.auth, self.host)
        return "-".join((*where, providers, people, self.license))


Values = frozenset[tuple[int, Any]]
"""Answers that meet in a row, each with the place of its question."""


def met_in(row: tuple[Any, ...]) -> set[Values]:
    """Return every two answers of a row."""
    return {frozenset(pair) for pair in combinations(enumerate(row), 2)}


Row = TypeVar("Row")


def covering(
    rows: Sequence[Row], goals: Callable[[Row], set[Values]], first: Sequence[Row] = ()
) -> list[Row]:
    """Return a few of the rows, `first` among them, that meet every goal that any row meets."""
    chosen = list(first)
    missing = set().union(*map(goals, rows)).difference(*map(goals, chosen))
    while missing:
        chosen.append(max(rows, key=lambda row: len(missing & goals(row))))
        missing -= goals(chosen[-1])
    return chosen


def _combinations() -> list[Combination]:
    """Give each database, limiter and authentication the other answers that they did not meet yet.

    It goes around until all have met.
    """
    triples = list(product(DATABASES, LIMITERS, AUTHS))
    others = list(product(HOSTS, PROVIDER_SETS, TEAMS, LICENSES))
    missing = set().union(*(_new(triple + other) for triple in triples for other in others))
    rows: list[Combination] = []
    for triple in cycle(triples):
        best = max((triple + other for other in others), key=lambda row: len(missing & _new(row)))
        missing -= _new(best)
        rows.append(Combination(*best))
        if not missing and len(rows) >= len(triples):
            return rows
    raise AssertionError("a cycle does not end")


def _new(row: tuple[Any, ...]) -> set[Values]:
    database, limiter, _, host, *_ = enumerate(row)
    return {*met_in(row), frozenset((database, limiter, host))}


COMBINATIONS = _combinations()
# Each database with each limiter and authentication, once: what runs is the same on every host.
SERVICES = COMBINATIONS[: len(DATABASES) * len(LIMITERS) * len(AUTHS)]

# Each could break something where it lands: TOML, YAML, JSON, Python, Make, shell or Markdown.
_HOSTILE_TEXTS = {
    "quotes": 'Zoë\'s "quoted" `code` \'\'\'triple\'\'\' """triple"""',
    "backslashes": "C:\\new\\table \\ \\\\ \\u0041 \\",
    "jinja": "{{ 7 * 7 }} {% raw %} {# gone #} ${{ secrets.X }}",
    "markup": "<b>&amp;</b> [link](x) *a* _b_ # | ~ ! ``` --- : - @ % $HOME $(id) %s {0}",
    "unicode": "Ünïcödé 日本語 🤖 \u200f\u2028 ß",
    "yaml": "- : ? & * ! | > ' \" % @ ` #x: [a, {b: c}], yes",
    "long": "n" * 200,
}

_HOSTILE_SLUGS = {"long": "n" * 50, "yaml": "null", "markup": "a1-b_2"}

# From the whole table, so that the texts land in the files of many options.
_SPREAD = COMBINATIONS[:: len(COMBINATIONS) // len(_HOSTILE_TEXTS)][: len(_HOSTILE_TEXTS)]
HOSTILE = {
    name: combination.answers
    | {
        "project_name": text.strip(),
        "project_slug": _HOSTILE_SLUGS.get(name, "acme"),
        "project_description": f"{text}\n\n{text}",
        "author_name": text,
    }
    for combination, (name, text) in zip(_SPREAD, _HOSTILE_TEXTS.items(), strict=True)
}
