"""The flags of `copier.yml`, and the files that a project has for them by their names."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import yaml
from combinations import Combination
from working_tree import ROOT

QUESTIONS: dict[str, Any] = yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8"))
CONDITION = re.compile(r"\{% if (\w+) %\}(.+?)\{% endif %\}")
ANSWERS_FILE = "{{ _copier_conf.answers_file }}"
_ENGINE = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701 - no HTML


@cache
def flags_of(combination: Combination) -> frozenset[str]:
    """Name the flags that hold for these answers: questions that are never asked, true or false."""
    known: dict[str, Any] = dict(combination.answers)
    flags = {name: question for name, question in QUESTIONS.items() if _is_flag(question)}
    for name, question in flags.items():
        known[name] = _ENGINE.from_string(question["default"]).render(known) == "True"
    return frozenset(name for name in flags if known[name])


def _is_flag(question: Any) -> bool:
    return isinstance(question, Mapping) and (question.get("type"), question.get("when")) == (
        "bool",
        False,
    )


def named_in(template: Path) -> list[tuple[str, frozenset[str]]]:
    """List the files of a template: the path in a project, and the flags that it takes."""
    tree = template / "template"
    paths = [path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()]
    return [
        (_emitted(path), frozenset(flag for flag, _ in CONDITION.findall(path))) for path in paths
    ]


def _emitted(path: str) -> str:
    plain = CONDITION.sub(r"\2", path).removesuffix(QUESTIONS["_templates_suffix"])
    return plain.replace(ANSWERS_FILE, QUESTIONS["_answers_file"])
