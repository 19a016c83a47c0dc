"""The files of every combination: those that its choices call for, and no other."""

import ast
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from combinations import COMBINATIONS, Combination
from conftest import files_of
from flags import QUESTIONS, flags_of, named_in
from working_tree import ROOT

FILES: dict[str, Any] = yaml.safe_load((ROOT / "tests/files.yml").read_text(encoding="utf-8"))
NOT_IMPORTED: list[str] = FILES["not_imported"]

every_combination = pytest.mark.parametrize("combination", COMBINATIONS, ids=str)


@every_combination
def test_a_project_has_the_files_whose_flags_hold(
    template: Path, trees: dict[Combination, Path], combination: Combination
) -> None:
    flags = flags_of(combination)
    expected = [path for path, needed in named_in(template) if needed <= flags]
    assert sorted(files_of(trees[combination])) == sorted(expected)


@every_combination
def test_the_top_of_a_project(trees: dict[Combination, Path], combination: Combination) -> None:
    chosen = {"always", *flags_of(combination)}
    expected = [name for flag, names in FILES["top"].items() if flag in chosen for name in names]
    assert sorted(path.name for path in trees[combination].iterdir()) == sorted(expected)


@every_combination
def test_every_module_is_imported_and_every_import_is_there(
    trees: dict[Combination, Path], combination: Combination
) -> None:
    """So a module without its flag, or under the wrong one, is found in some project."""
    texts = {path: text for path, text in files_of(trees[combination]).items() if _is_python(path)}
    modules = {_module(path): path for path in texts}
    packages = {name for module in modules for name in _parents(module)}
    imported = {name for path, text in texts.items() for name in _imports(text, _package(path))}
    own = {name for name in imported if name.partition(".")[0] in packages}
    there = packages | modules.keys()
    lost = {name for name in own if not {name, name.rpartition(".")[0]} & there}
    assert not lost, "imported, and not there"
    idle = {path for module, path in modules.items() if module not in imported}
    assert not {path for path in idle if not _stands_alone(path)}, "nothing imports it"


@pytest.mark.parametrize("pattern", NOT_IMPORTED)
def test_every_exception_is_used(trees: dict[Combination, Path], pattern: str) -> None:
    paths = (path for tree in trees.values() for path in files_of(tree))
    assert any(fnmatch(path, pattern) for path in paths)


def test_each_file_has_a_destination_of_its_own(template: Path) -> None:
    """Two alternatives under one name are a trap when answers change."""
    paths = sorted(path for path, _ in named_in(template))
    assert paths == sorted(set(paths))


def test_the_flags_in_names_and_lists_are_questions(template: Path) -> None:
    used = {flag for _, needed in named_in(template) for flag in needed}
    assert used | FILES["top"].keys() - {"always"} <= QUESTIONS.keys()


def _is_python(path: str) -> bool:
    return path.endswith(".py")


def _stands_alone(path: str) -> bool:
    return any(fnmatch(path, pattern) for pattern in NOT_IMPORTED)


def _module(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _package(path: str) -> str:
    """The package in which the relative imports of a module begin."""
    return path.rpartition("/")[0].replace("/", ".")


def _parents(module: str) -> Iterator[str]:
    while module := module.rpartition(".")[0]:
        yield module


@cache
def _imports(text: str, package: str) -> frozenset[str]:
    """Name all that may be modules; look once, as most modules are the same in most trees."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = ".".join(package.split(".")[: -node.level + 1 or None]) if node.level else ""
            source = ".".join(filter(None, [start, node.module]))
            names |= {source, *(f"{source}.{alias.name}" for alias in node.names)}
    return frozenset(names)
