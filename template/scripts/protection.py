"""What protects the repository on GitHub: compared with the files, and made as they say."""

import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from urllib.parse import quote

from scripts.github import GitHub, HiddenError
from scripts.rulesets import (
    Comparison,
    Ruleset,
    RulesetError,
    Settings,
    compare,
    compare_enforced,
    is_rule,
    is_ruleset,
    settings_of_rule,
)

KEPT = "GitHub took {name}.json, but has something else all the same:\n{lines}"
RULESETS_HIDDEN = "This token may not read rulesets: only what holds for {branch} is compared."


def plan(github: GitHub, files: Sequence[Ruleset]) -> list[Comparison]:
    """Compare each file with GitHub's ruleset of that name."""
    github.branch()  # a repository that is not there is named as such
    return compare_all(github, files)


def compare_all(github: GitHub, files: Sequence[Ruleset]) -> list[Comparison]:
    found = rulesets_of(github, [file["name"] for file in files])
    return [compare(file, found.get(file["name"])) for file in files]


def apply(github: GitHub, files: Sequence[Ruleset]) -> list[Comparison]:
    """Write what differs, and return what differed."""
    return [
        each if each.state == "equal" else make_so(github, each) for each in plan(github, files)
    ]


def make_so(github: GitHub, comparison: Comparison) -> Comparison:
    """Write a ruleset; raise RulesetError if GitHub made something else of it."""
    left = compare(comparison.file, write(github, comparison))
    if left.differences:
        lines = "\n".join(left.lines())
        raise RulesetError(KEPT.format(name=comparison.file["name"], lines=lines))
    return replace(comparison, state="applied")


def check(github: GitHub, files: Sequence[Ruleset]) -> list[Comparison]:
    """Compare the rulesets, and if they are as in the files, what holds for the branch."""
    branch = github.branch()
    try:
        comparisons = compare_all(github, files)
    except HiddenError:
        print(RULESETS_HIDDEN.format(branch=branch), file=sys.stderr)
        comparisons = [Comparison(file, "unseen") for file in files]
    if any(comparison.differences for comparison in comparisons):
        return comparisons
    enforced = enforced_rules(github, branch)
    return [
        compare_enforced(each.file, enforced) if each.file["target"] == "branch" else each
        for each in comparisons
    ]


def rulesets_of(github: GitHub, names: Collection[str]) -> dict[str, Ruleset]:
    """Read the repository's own rulesets of these names."""
    listed = github.objects("/rulesets")
    own = [each for each in listed if each.get("source_type", "Repository") == "Repository"]
    ids = {each.get("name"): each.get("id") for each in own}
    paths = {name: f"/rulesets/{ids[name]}" for name in names if name in ids}
    return {name: ruleset(github, "GET", path) for name, path in paths.items()}


def enforced_rules(github: GitHub, branch: str) -> list[Settings]:
    """Read the rules that hold for a branch: all who may read the repository may do so."""
    rules = github.objects(f"/rules/branches/{quote(branch, safe='')}")
    if not all(map(is_rule, rules)):
        raise github.no_github()
    return [*map(settings_of_rule, rules)]


def write(github: GitHub, comparison: Comparison) -> Ruleset:
    """Create a ruleset, or replace the one that was found; return what GitHub made of it."""
    if comparison.id is None:
        return ruleset(github, "POST", "/rulesets", comparison.file)
    return ruleset(github, "PUT", f"/rulesets/{comparison.id}", comparison.file)


def ruleset(github: GitHub, method: str, path: str, file: Ruleset | None = None) -> Ruleset:
    content = github.object(method, path, file)
    if not is_ruleset(content) or not isinstance(content.get("id"), int):
        raise github.no_github()
    return content
