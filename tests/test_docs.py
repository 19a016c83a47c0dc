"""Every command of the documentation works: this repository's, and those of a running project."""

import ast
import datetime as dt
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from os import environ
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import dedent
from typing import Any

import pytest
from combinations import AUTHS, COMBINATIONS, PROVIDER_SETS, SERVICES, Combination
from conftest import BASE_ANSWERS, Render, git
from environments import environment_with
from processes import answers, clean_environment, kept_port, listening, run
from projects import requirements_of
from servers import supabase_auth
from working_tree import ROOT, render

OWN_PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
BLOCK = re.compile(r"^ *```(sh|console|python|toml)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
# On the page about features: a file, and lines to add to or take from a file.
FILE_OR_EDITS = re.compile(
    r"`([\w/.]+)`:\n\n(?:```python\n(.*?)^```|((?:```diff\n.*?^```\n\n)+))",
    re.MULTILINE | re.DOTALL,
)
EDIT = re.compile(r"^```diff\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCK_SECONDS = 600
# Of an example, whose day passes.
DATE = re.compile(r"\b20\d\d-\d\d-\d\d\b")

# Where each command of this repository's pages is run: a file, and the text that does it there. The
# commands of a project's README are run below.
PROVEN_BY = {
    "make demo": "tests/test_repository.py: demo",
    "make test": ".ci/run: make test",
    "make test-all": "Makefile: test-all:",  # hours, once a week
    "make test-quick": "Makefile: test-quick:",  # a part of what `make test` runs
    "make check": ".github/workflows/ci.yml: make check",
    "make preview ANSWERS=tests/answers.yml": "tests/test_repository.py: preview",
    "uvx copier copy gh:OWNER/copier-ai-service my-service": "tests/test_update.py: run_copy",
    "cd my-service": "tests/test_update.py: run_copy",
    'git init && git add --all && git commit --message "feat: first commit"': (
        "template/README.md.jinja: git init"
    ),
    "GH_TOKEN=$(gh auth token) python3 scripts/protect.py plan": (
        'tests/test_own_rules.py: "plan", "apply"'
    ),
    "GH_TOKEN=$(gh auth token) python3 scripts/protect.py apply": (
        'tests/test_own_rules.py: "plan", "apply"'
    ),
    "git config --global core.autocrlf input": (
        "tests/test_update.py: git config --global core.autocrlf input"
    ),
    "git rm -r --quiet --cached . && git reset --hard": (
        "tests/test_update.py: git rm -r --quiet --cached . && git reset --hard"
    ),
    "make run": "tests/test_docs.py: make run",
    'make ask q="Why is the sky blue?"': "template/README.md.jinja: make ask",
    'make app ARGS="users create --email grace@example.com"': "template/README.md.jinja: create",
    'make app ARGS="users set-plan --email grace@example.com --plan pro"': (
        "template/README.md.jinja: set-plan"
    ),
    "make doctor": "template/README.md.jinja: make doctor",
    "cp -r TEMPLATE/examples/billing/. .": "tests/test_billing_example.py: copytree(EXAMPLE",
    "make update": "tests/test_update.py: make_update(project)",
    "cp TEMPLATE/template/scripts/{update,merge,scratch}.py scripts/": (
        'tests/test_update.py: UPDATER = ("update.py", "merge.py", "scratch.py")'
    ),
    'git add scripts && git commit --message "chore: the new updater"': (
        "tests/test_update.py: for name in UPDATER"
    ),
    "make update ARGS=--check": "tests/test_update.py: --check",
    'make update ARGS="--to v0.3.0"': "tests/test_update.py: --to=",
    'make update ARGS="--data host=compose"': "tests/test_update.py: --data=host=compose",
    "make update ARGS=\"--data 'providers=[openai, replicate]'\"": (
        "tests/test_update.py: --data=providers=[openai, replicate]"
    ),
}

# What a project's pages say and is not run from there: what this test or another one does
# (test_newcomer.py, test_services.py, test_update.py), and what is for a person's hand.
PG_BASIC = {"database": "postgres", "limiter": "redis", "auth": "basic"}
COMMIT = 'git init && git add --all && git commit --message "feat: first commit"'
PROTECT = "GH_TOKEN=$(gh auth token) python3 scripts/protect.py"
SQUASHED = "--field squash_merge_commit_title=PR_TITLE --field squash_merge_commit_message=PR_BODY"
NOT_RUN = {
    *("make run", "make test", "make test-gateway", "make drill", "make update"),
    *("read -r API_KEY", "read -r PASSWORD", "read -r TOKEN"),
    *(COMMIT, "git branch -M main", "gh workflow run release.yml"),
    "gh repo create your-github-name/acme-chat --private --source . --push",
    f'gh api --method PATCH "repos/{{owner}}/{{repo}}" {SQUASHED}',
    *(f"{PROTECT} plan", f"{PROTECT} apply"),
    'gh api "repos/{owner}/{repo}/codeowners/errors" --jq .errors',
}


@dataclass
class Reader:
    """Somebody who does what the pages say, with the service up and its credential noted down."""

    directory: Path
    environment: dict[str, str]
    credential: str = ""
    team: str = field(default="", init=False)

    def do(self, block: str) -> None:
        """Run a block of shell commands, and note down the credential or the team that it shows."""
        commands = [line for line in block.splitlines() if line.strip() not in NOT_RUN]
        script = re.sub(r"\bTEAM\b", self.team, "\n".join(commands))
        shown = self._run(["bash", "-ec", DATE.sub(f"{dt.datetime.now(dt.UTC):%F}", script)])
        if credential := re.search(r"^ada@example\.com: (\S+)$", shown, re.MULTILINE):
            self.credential = credential[1]
        if team := re.search(r"^team_\w+", shown, re.MULTILINE):
            self.team = team[0]

    def run_python(self, block: str) -> str:
        """Run a block of Python, which finds the credential in the environment."""
        return self._run([sys.executable, "-c", block])

    def _run(self, command: list[str]) -> str:
        # The pages say 8000, where another service may be listening on this machine.
        here = [word.replace("localhost:8000", self._address) for word in command]
        noted = dict.fromkeys(("API_KEY", "PASSWORD", "TOKEN"), self.credential)
        result = subprocess.run(
            here,
            cwd=self.directory,
            env=self.environment | noted,
            input="y\n",  # to the question before a deletion
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=BLOCK_SECONDS,
            check=False,
        )
        assert result.returncode == 0, f"{shlex.join(here)}\n{result.stdout}"
        return result.stdout

    @property
    def _address(self) -> str:
        return f"localhost:{self.environment['PORT']}"


@pytest.mark.parametrize("page", OWN_PAGES, ids=lambda page: page.name)
def test_every_command_of_this_repository_is_run_somewhere(page: Path) -> None:
    commands = [
        line.strip().partition("  #")[0].rstrip()
        for language, block in _blocks(page)
        if language not in {"python", "toml"}
        for line in block.splitlines()
    ]
    for command in filter(None, commands):
        file, _, text = PROVEN_BY[command].partition(": ")
        assert text in (ROOT / file).read_text(encoding="utf-8"), command


# Paths of a project, as its pages name them.
PATH = re.compile(r"`((?:app|gateway|tests|drill|scripts|docs)/[\w./-]*)`")
# What a reader of a page makes.
MADE = re.compile(
    r"app/(notes|summaries|jobs)\.py|.*/(notes|summaries|summarise|NAME)\.py|tests/test_\w+"
)


@pytest.mark.parametrize("combination", COMBINATIONS, ids=str)
def test_every_path_on_a_page_is_there(
    trees: dict[Combination, Path], combination: Combination
) -> None:
    project = trees[combination]
    pages = [*project.glob("*.md"), *project.glob("docs/*.md"), project / "gateway/README.md"]
    named = {(page.name, path) for page in pages for path in PATH.findall(page.read_text("utf-8"))}
    missing = {(page, path) for page, path in named if not (project / path).exists()}
    assert not {(page, path) for page, path in missing if not MADE.match(path)}


@pytest.mark.slow(minutes=1.5)
@pytest.mark.parametrize("combination", [SERVICES[0], SERVICES[-1]], ids=str)
def test_every_command_of_a_project_works(
    template: Path, trees: dict[Combination, Path], combination: Combination
) -> None:
    """The README's first, then page by page, on one running service.

    Of the second project, the pages that the first does not have in the same words.
    """
    if not shutil.which("curl"):
        (pytest.fail if environ.get("CI") == "true" else pytest.skip)("Install curl.")
    with _reader(template, combination) as reader:
        pages = [reader.directory / "README.md", *sorted(reader.directory.glob("docs/*.md"))]
        if combination != SERVICES[0]:
            first = {text.read_text("utf-8") for text in trees[SERVICES[0]].glob("docs/*.md")}
            pages = [page for page in pages if page.read_text("utf-8") not in first]
        for language, block in (block for page in pages for block in _blocks(page)):
            if "[team_plans." in block:
                with (reader.directory / "plans.toml").open("a", encoding="utf-8") as plans:
                    plans.write(f"\n{block}")
            elif language == "sh":
                reader.do(block)
            elif "OpenAI(" in block:
                assert "Hello" in reader.run_python(block)


@pytest.mark.parametrize("auth", AUTHS)
def test_code_on_the_pages_has_no_credential_in_it(render: Render, auth: str) -> None:
    """A reader who follows it keeps credentials in the environment."""
    project = render(auth=auth)
    pages = [project / "README.md", *project.glob("docs/*.md")]
    code = [text for page in pages for language, text in _blocks(page) if language == "python"]
    clients = [text for text in code if "OpenAI(" in text]
    assert clients
    for text in clients:
        assert re.search(r"os\.environ\[.(API_KEY|PASSWORD|TOKEN).\]", text)
        assert not re.search(r'api_key="\w|@example\.com:\w', text)


@pytest.mark.slow
@pytest.mark.parametrize("providers", PROVIDER_SETS, ids="+".join)
def test_the_model_that_the_pages_show_starts_and_its_fallback_can_stand_in(
    render: Render, providers: tuple[str, ...]
) -> None:
    """As somebody copies it into `models.toml`, line by line."""
    project = render(providers=list(providers))
    pages = sorted(project.glob("docs/*.md"))
    tables = [text for page in pages for language, text in _blocks(page) if language == "toml"]
    shown = [text for text in tables if "plans." not in text]  # those are for plans.toml
    file = project / "models.toml"
    text = "\n".join([file.read_text(encoding="utf-8"), *shown])
    file.write_text(text, encoding="utf-8")
    python = environment_with(requirements_of(project)) / "bin/python"
    doctor = subprocess.run(
        [python, "-m", "app", "doctor", "--json"],
        cwd=project,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    verdicts = {found["check"]: found["verdict"] for found in json.loads(doctor.stdout)}
    assert verdicts["policy"] == "ok"
    models = tomllib.loads(text)["models"]
    (model,) = (model for model in models.values() if "fallbacks" in model)
    for fallback in (models[name] for name in model["fallbacks"]):
        assert fallback["provider"] != "offline"
        assert _most(fallback) <= _most(model)


@pytest.mark.slow(minutes=0.5)
def test_the_page_on_tables_adds_one(render: Render) -> None:
    """Its table, its migration, and a second migration by the same command."""
    project = render()
    shown = [dedent(text) for _, text in _blocks(project / "docs/add-a-table.md")]
    (table,) = (text for text in shown if "__all__" in text)
    (migration,) = (text for text in shown if "op.create_table" in text)
    (command,) = (text for text in shown if "alembic revision" in text)
    python = environment_with(requirements_of(project)) / "bin/python"

    def run(line: str) -> str:
        words = shlex.split(line.replace(".venv/bin/python", str(python)))
        environment = clean_environment() | {"SECRET_KEY": "s" * 43}
        done = subprocess.run(
            words, cwd=project, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    (project / "app/tables.py").write_text(table, encoding="utf-8")
    run(command)
    (notes,) = project.glob("app/migrations/versions/*_notes.py")
    head = notes.read_text(encoding="utf-8").partition("def upgrade()")[0].rstrip()
    upgrade = migration[migration.index("def upgrade()") :]
    notes.write_text(f"{head}\n\n\n{upgrade}", encoding="utf-8")
    run(command.replace("notes", "more"))
    (more,) = project.glob("app/migrations/versions/*_more.py")
    assert f'down_revision = "{notes.name.split("_")[0]}"' in more.read_text().replace("'", '"')

    run(".venv/bin/python -m ruff check --fix app")
    run(".venv/bin/python -m scripts.check_migrations")
    run(".venv/bin/python -m pytest --quiet tests/gateway/test_migrations.py")
    assert len(json.loads(run(".venv/bin/python -m app migrate --json"))) > 2
    run(".venv/bin/python -m app doctor")


@pytest.mark.slow(minutes=1.5)
@pytest.mark.parametrize(
    "answers",
    [{}, pytest.param(PG_BASIC, marks=pytest.mark.product)],
    ids=["default", "richest"],
)
def test_the_page_on_features_adds_one(render: Render, answers: dict[str, Any]) -> None:
    """Its routes with their tests first; then all of it, with the variant for larger bodies."""
    project = render(**answers)
    page = (project / "docs/add-a-feature.md").read_text(encoding="utf-8")
    routes, rest = page.split("## Included in every call")
    tools = environment_with(requirements_of(project)) / "bin"

    def run(tool: str, *words: str) -> None:
        done = subprocess.run(
            [tools / tool, *words],
            cwd=project,
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout

    def test() -> None:
        run("ruff", "check", "--fix", "--quiet")  # as `make format`
        run("ruff", "format", "--quiet")
        names = ("summar", "jobs")
        tests = [str(path) for name in names for path in project.glob(f"tests/test_*{name}*.py")]
        run("python", "-m", "pytest", "--quiet", "-p", "no:cacheprovider", *tests)

    follow(routes, project)
    test()
    follow(rest, project)
    test()
    run("ruff", "check")
    run("mypy")
    run("lint-imports", "--no-cache")


@pytest.mark.parametrize(
    ("forms", "pages"),
    [
        ({"Plan", "Service"}, ["plans.toml"]),
        ({"Model"}, ["models.toml.jinja", "docs/add-a-model.md.jinja"]),
    ],
    ids=["plans", "models"],
)
def test_everything_that_the_policy_files_take_is_named(forms: set[str], pages: list[str]) -> None:
    template = ROOT / "template"
    code = ast.parse((template / "gateway/policy.py").read_text(encoding="utf-8"))
    fields = {
        ast.unparse(line.target)
        for form in code.body
        if isinstance(form, ast.ClassDef) and form.name in forms
        for line in form.body
        if isinstance(line, ast.AnnAssign)
    }
    text = "".join((template / page).read_text(encoding="utf-8") for page in pages)
    named = set(re.findall(r"\w+", text))
    assert fields - named == ({"id"} if "Model" in forms else set())


def follow(page: str, project: Path) -> None:
    """Write the files of a page, and make its edits."""
    for name, file, edits in FILE_OR_EDITS.findall(page):
        path = project / name
        text = file or path.read_text(encoding="utf-8")
        for lines in (edit.splitlines() for edit in EDIT.findall(edits)):
            before = "\n".join(line[1:] for line in lines if line[0] in " -")
            assert text.count(f"{before}\n") == 1, (name, before)
            text = text.replace(before, "\n".join(line[1:] for line in lines if line[0] in " +"))
        path.write_text(text, encoding="utf-8")


def _most(model: dict[str, Any]) -> float:
    """What a call with a few words can cost, in some unit."""
    if "usd_per_output" in model:
        return float(model["usd_per_output"] * model["max_outputs"] * 1_000_000)
    if "usd_per_second" in model:
        return float(model["usd_per_second"] * model["max_seconds"] * 1_000_000)
    input_tokens, output_tokens = 200, model["max_output_tokens"]
    prices = model["input_usd_per_million_tokens"], model["output_usd_per_million_tokens"]
    return float(input_tokens * prices[0] + output_tokens * prices[1])


def _blocks(page: Path) -> list[tuple[str, str]]:
    """Read the fenced blocks of a page: language and text."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


@contextmanager
def _reader(template: Path, combination: Combination) -> Iterator[Reader]:
    """Generate a project as its owner does, and keep `make run` running in it."""
    with TemporaryDirectory(prefix="docs-") as scratch, kept_port() as port:
        directory = Path(scratch) / "project"
        render(template, directory, BASE_ANSWERS | combination.answers)
        git(directory, "init", "--quiet")
        environment = clean_environment() | {"PORT": str(port)}
        make = ["make", "--no-print-directory", f"PYTHON={sys.executable}"]
        run([*make, "setup"], directory, environment, seconds=None)
        with ExitStack() as stack:
            credential = ""
            if combination.auth == "supabase":
                python = directory / ".venv/bin/python"
                auth = stack.enter_context(supabase_auth(directory, python, environment))
                credential = auth.token
                environment |= auth.settings
            ready, log = partial(answers, port), Path(scratch) / "log"
            stack.enter_context(listening([*make, "run"], directory, environment, log, ready))
            yield Reader(directory, environment, credential)
