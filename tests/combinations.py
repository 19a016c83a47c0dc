"""The answer sets that are rendered and proven, one id each.

Database, limiter, authentication and host meet in every way; the other questions rotate in cycles,
so that any two of their values meet too (`test_questions.py` asserts it).
"""

from dataclasses import dataclass
from itertools import combinations, cycle, islice, product
from typing import Any

DATABASES = ("sqlite", "postgres")
LIMITERS = ("memory", "redis", "database")
AUTHS = ("api_key", "basic")
HOSTS = ("railway", "compose")
PROVIDERS = ("openai", "huggingface", "replicate")
PROVIDER_SETS = tuple(chosen for size in (1, 2, 3) for chosen in combinations(PROVIDERS, size))
# Five turns: two would go in step with the hosts, and each would meet one of them only.
TEAMS = (False, True, False, True, True)
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


_CROSSED = list(product(DATABASES, LIMITERS, AUTHS, HOSTS))
_ENOUGH = 2 * len(_CROSSED)  # the fewest rows in which any two values meet
_ROTATING = (PROVIDER_SETS, TEAMS, LICENSES)
_ROWS = islice(zip(cycle(_CROSSED), *map(cycle, _ROTATING), strict=True), _ENOUGH)

COMBINATIONS = [Combination(*chosen, *rotating) for chosen, *rotating in _ROWS]
# Each database with each limiter and authentication, once: what runs is the same on every host.
SERVICES = COMBINATIONS[: len(_CROSSED) : len(HOSTS)]

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

_SPREAD = COMBINATIONS[: -5 * len(_HOSTILE_TEXTS) : -5]
# Rotating through all other answers, so that each text lands in the files of every option.
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
