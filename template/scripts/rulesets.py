"""The rulesets in .github/rulesets, and how those on GitHub differ from them."""

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BYPASS_HIDDEN = "Only administrators see on GitHub who may bypass a ruleset: not compared."

STATES = {
    "equal": "as its file says",
    "missing": "not on GitHub",
    "different": "GitHub has something else",
    "applied": "now as its file says",
    "unseen": "this token may not see it",
}

Ruleset = dict[str, Any]
# Each setting by its path, such as "rules.pull_request.required_approving_review_count".
Settings = dict[str, Any]


class RulesetError(Exception):
    """What is wrong with a ruleset."""


@dataclass(frozen=True)
class Difference:
    """A setting in the file and on GitHub; None where there is none."""

    setting: str
    file: Any
    github: Any

    def lines(self) -> Iterator[str]:
        for sign, value in (("-", self.github), ("+", self.file)):
            if value is not None:
                yield f"  {sign} {self.setting}: {json.dumps(value)}"


@dataclass(frozen=True)
class Comparison:
    """A ruleset's file, and GitHub's ruleset of that name, which has an `id`."""

    file: Ruleset
    state: str
    differences: Sequence[Difference] = ()
    id: int | None = None

    def lines(self) -> Iterator[str]:
        yield f"{self.file['name']} ({self.file['target']}): {STATES[self.state]}"
        for difference in self.differences:
            yield from difference.lines()

    def as_json(self) -> dict[str, Any]:
        identity = {key: self.file[key] for key in ("name", "target")}
        return identity | {"state": self.state, "differences": [*map(vars, self.differences)]}


def read_files(folder: Path) -> list[Ruleset]:
    """Read the rulesets; raise RulesetError for one that cannot be compared."""
    files = [read_file(path) for path in sorted(folder.glob("*.json"))]
    if not files:
        raise RulesetError("There is no ruleset in .github/rulesets: restore them from git.")
    return files


def read_file(path: Path) -> Ruleset:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RulesetError(f"{path.name} cannot be read: {error}") from error
    named = isinstance(content, dict) and content.get("name") == path.stem
    if not (named and is_ruleset(content) and content.keys() >= {"target", "enforcement"}):
        raise RulesetError(
            f'{path.name} needs "name": "{path.stem}", a target, an enforcement and rules.'
        )
    return dict(content)


def is_ruleset(content: Any) -> bool:
    """Tell whether rules and conditions have the form in which they are compared."""
    if not isinstance(content, dict) or not isinstance(content.get("rules"), list):
        return False
    conditions = content.get("conditions") or {}
    names = conditions.get("ref_name") or {} if isinstance(conditions, dict) else None
    return isinstance(names, dict) and all(map(is_rule, content["rules"]))


def is_rule(content: Any) -> bool:
    parameters = content.get("parameters") or {} if isinstance(content, dict) else None
    return isinstance(parameters, dict) and isinstance(content.get("type"), str)


def settings_of(ruleset: Ruleset) -> Settings:
    """Name each setting by its path; the order of a list means nothing."""
    plain = ("target", "enforcement", "bypass_actors")
    settings = {name: in_order(ruleset[name]) for name in plain if name in ruleset}
    names = (ruleset.get("conditions") or {}).get("ref_name") or {}
    settings |= {f"conditions.ref_name.{key}": in_order(value) for key, value in names.items()}
    for rule in ruleset["rules"]:
        settings |= settings_of_rule(rule)
    return settings


def settings_of_rule(rule: Mapping[str, Any]) -> Settings:
    name = f"rules.{rule['type']}"
    parameters = (rule.get("parameters") or {}).items()
    return {name: True} | {f"{name}.{key}": in_order(value) for key, value in parameters}


def in_order(value: Any) -> Any:
    return sorted(value, key=json.dumps) if isinstance(value, list) else value


def differences(file: Settings, github: Settings) -> list[Difference]:
    """Compare each setting of the file, and which rules there are."""
    extra = [name for name in github if re.fullmatch(r"rules\.\w+", name) and name not in file]
    return [
        Difference(name, file.get(name), github.get(name))
        for name in [*file, *extra]
        if file.get(name) != github.get(name)
    ]


def compare(file: Ruleset, found: Ruleset | None) -> Comparison:
    wanted = settings_of(file)
    if found is None:
        return Comparison(file, "missing", differences(wanted, {}))
    if "bypass_actors" not in found and "bypass_actors" in wanted:
        del wanted["bypass_actors"]
        print(BYPASS_HIDDEN, file=sys.stderr)
    others = differences(wanted, settings_of(found))
    return Comparison(file, "different" if others else "equal", others, found["id"])


def compare_enforced(file: Ruleset, enforced: Sequence[Settings]) -> Comparison:
    """Compare the file's rules with those that hold for a branch, whichever ruleset they are of."""
    rules = [settings_of_rule(rule) for rule in file["rules"]]
    others = [difference for rule in rules for difference in closest(rule, enforced)]
    return Comparison(file, "different" if others else "equal", others)


def closest(rule: Settings, enforced: Sequence[Settings]) -> list[Difference]:
    """Compare a rule with the one of its kind that differs least."""
    same_kind = [differences(rule, other) for other in enforced if next(iter(rule)) in other]
    return min(same_kind, key=len, default=differences(rule, {}))
