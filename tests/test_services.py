"""Every database with every limiter and authentication: its own tests pass, it starts, it answers.

Which of them run all of their tests here, docs/decisions/0009-whole-suites.md says.

Each service has an environment with its own dependencies and nothing else, and runs with the
servers that it brings.
"""

import json
import re
import signal
import subprocess
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fnmatch import filter as filter_names
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

import openai
import pytest
from combinations import DATABASES, LIMITERS, PROVIDERS, SERVICES, Combination
from conftest import BASE_ANSWERS
from environments import environment_with
from openai.types.chat import ChatCompletionMessageParam
from processes import clean_environment
from projects import Project, installed, requirements_of, serving
from servers import add_plan, burst, descendants, processes
from working_tree import ROOT, render

pytestmark = pytest.mark.slow

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]
CHAT = {"model": "offline/echo", "messages": MESSAGES}
SUITE_SECONDS = 2400
DRILL_SECONDS = 1200
# Of the default answers, the first run of ci.yml: see test_newcomer.py.
DEFAULT = ("sqlite", "memory", "api_key")
# With the default answers, they hold every part that can be chosen; the second has all providers.
WHOLE = {("postgres", "redis", "basic"), ("postgres", "database", "api_key")}
# The other databases with the other limiters, once: all but what is between us and a provider.
BACKENDS = {
    ("sqlite", "redis", "api_key"),
    ("sqlite", "database", "basic"),
    ("postgres", "memory", "basic"),
}
OF_PROVIDERS = (
    *("chat_faults", "completion", "http", "huggingface*", "json_text", "messages"),
    *("models_check*", "openai*", "output_limit", "parameters", "policy", "prices", "pricing"),
    *(
        "redaction",
        "replicate*",
        "responses*",
        "returned_messages",
        "server_entries",
        "server_shapes",
    ),
    *("servers", "simulator*", "sse", "stream_texts"),
)
# Elsewhere, what a log-in does with the database and the limiter.
OF_LOGIN = (
    *("account", "admin_people", "auth", "basic", "cli", "doctor", "health", "key_form", "keys"),
    *("limits", "login_flood", "migrations", "serve"),
)
# With the default answers, whose tests are traced too, they hold every part that can be chosen.
TRACED = {("postgres", "redis", "basic")}
SHARED_BY_MANY = {("postgres", "redis"), ("postgres", "database")}


def answers_of(combination: Combination) -> tuple[str, str, str]:
    """What a service is made of."""
    return combination.database, combination.limiter, combination.auth


def _slow(service: Combination) -> pytest.MarkDecorator:
    """Of how many minutes its own tests are."""
    minutes = 8 if answers_of(service) in WHOLE else 4 if answers_of(service) in BACKENDS else 0.5
    return pytest.mark.slow(minutes=minutes)


every_service = pytest.mark.parametrize("combination", SERVICES, ids=str)
every_suite = pytest.mark.parametrize(
    "combination",
    [pytest.param(service, id=str(service), marks=_slow(service)) for service in SERVICES],
)
every_pair = pytest.mark.parametrize(
    "combination", [service for service in SERVICES if service.auth == "api_key"], ids=str
)


@pytest.fixture
def directory(template: Path, combination: Combination) -> Iterator[Path]:
    """A project that nothing else uses.

    It is not below pytest's folder: as root, PostgreSQL is another user, whom the next pytest to
    start on this machine shuts out of there.
    """
    with _generated(template, combination) as directory:
        yield directory


@contextmanager
def _generated(template: Path, combination: Combination) -> Iterator[Path]:
    with TemporaryDirectory(prefix="service-") as scratch:
        directory = Path(scratch) / "project"
        render(template, directory, BASE_ANSWERS | combination.answers)
        yield directory


@pytest.fixture
def python(directory: Path) -> Path:
    """The Python of an environment with what the project says that it needs."""
    return environment_with(requirements_of(directory)) / "bin/python"


@pytest.fixture
def project(directory: Path, python: Path) -> Iterator[Project]:
    """The project with its tables and the servers that it brings."""
    with installed(directory, python) as project:
        yield project


def authorization(combination: Combination, email: str, credential: str) -> dict[str, str]:
    """Say who asks, the way that this service understands."""
    if combination.auth == "basic":
        return {"Authorization": f"Basic {b64encode(f'{email}:{credential}'.encode()).decode()}"}
    return {"Authorization": f"Bearer {credential}"}


@every_suite
def test_its_own_tests_pass_with_the_coverage_that_it_asks_for(
    directory: Path, python: Path, combination: Combination
) -> None:
    """As its `make test` runs them; coverage is traced, at twice the time, where all differs."""
    coverage = ["--cov"] if answers_of(combination) in TRACED else []
    project = Project(directory, python, clean_environment())
    chosen = _chosen(directory / "tests", combination)
    project.run("pytest", "-v", *coverage, *chosen, seconds=SUITE_SECONDS)


def _chosen(tests: Path, combination: Combination) -> list[str]:
    """Arguments for the part of a service's own tests that runs here; none for all of them."""
    answers = answers_of(combination)
    if answers in WHOLE:
        return []
    if answers in BACKENDS:
        return [f"--ignore-glob={tests}/test_{name}.py" for name in OF_PROVIDERS]
    paths = [tests / f"test_{name}.py" for name in OF_LOGIN]
    return [str(path) for path in paths if path.exists()]


@pytest.mark.slow(minutes=6)
@pytest.mark.parametrize("limiter", LIMITERS)
def test_every_promise_holds_in_its_drill(template: Path, limiter: str) -> None:
    """Every database with every limiter; log-in plays no part in it.

    One after the other: of two at once, each would be the other's hostile caller.
    """
    of_limiter = [s for s in SERVICES if s.auth == "api_key" and s.limiter == limiter]
    for pair in of_limiter:
        with _drilling(template, pair) as drill:
            output, errors = drill.communicate(timeout=DRILL_SECONDS)
        assert output, f"{pair}: {errors}"
        findings = json.loads(output)
        broken = [str(finding) for finding in findings if finding["verdict"] != "holds"]
        assert not broken, "\n".join([str(pair), *broken])
        assert drill.returncode == 0
    assert len(of_limiter) == len(DATABASES)


@contextmanager
def _drilling(template: Path, combination: Combination) -> Iterator[subprocess.Popen[str]]:
    """The drill of a new project; it ends with the block."""
    with _generated(template, combination) as directory:
        python = environment_with(requirements_of(directory)) / "bin/python"
        with subprocess.Popen(
            [python, "-m", "drill"],
            cwd=directory,
            env=clean_environment() | {"JSON": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as drill:
            try:
                yield drill
            finally:
                drill.terminate()


@pytest.mark.parametrize(
    "combination",
    [
        service
        for service in SERVICES
        if service.auth == "api_key" and (service.database, service.limiter) in SHARED_BY_MANY
    ],
    ids=str,
)
def test_a_cap_is_exact_over_twenty_processes(directory: Path, python: Path) -> None:
    """Of 500 calls at once that cost their bound, exactly those that the cap pays for."""
    project = Project(directory, python, clean_environment() | {"JSON": "1"})
    only = ("--processes", "20", "--only", "a cap that pays for 37")
    (finding,) = json.loads(project.run("drill", *only, seconds=DRILL_SECONDS))
    assert finding["seen"].startswith("37 times ok, 463 times 402 budget_exceeded")


@every_pair
def test_a_drill_that_is_stopped_leaves_no_process_behind(
    directory: Path, python: Path, combination: Combination
) -> None:
    """As Ctrl-C stops it, once the service and all that it stands on are up."""
    scratch = directory.parent / "scratch"
    scratch.mkdir(mode=0o755)
    # Where PostgreSQL's wheel keeps its lock for the whole machine, as on one with a login.
    runtime = directory.parent / "runtime"
    runtime.mkdir(mode=0o700)
    (runtime / "python_PostgresServer").mkdir()
    with subprocess.Popen(
        [python, "-u", "-m", "drill"],
        cwd=directory,
        env=clean_environment() | {"TMPDIR": str(scratch), "XDG_RUNTIME_DIR": str(runtime)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as drill:
        assert drill.stdout
        drill.stdout.readline()
        started = descendants(drill.pid)
        drill.send_signal(signal.SIGINT)
        assert drill.wait(DRILL_SECONDS) == 130
    assert len(started) > 1
    left = processes()
    assert not started & set(left)
    # A server that detaches itself still names the folder of its data.
    assert not [command for _, command in left.values() if str(scratch) in command]
    assert not list(scratch.iterdir())


@every_service
def test_it_answers_openai_own_client(project: Project, combination: Combination) -> None:
    """Models, chat, stream and embedding; and its own errors for what is refused."""
    with serving(project, "--migrate") as service:
        email = "ada@example.com"
        headers = authorization(combination, email, project.create_user(email))
        url = f"http://127.0.0.1:{service.port}/v1"
        with openai.OpenAI(
            base_url=url, api_key="-", default_headers=headers, max_retries=0
        ) as client:
            answers_everything(client)
            raises_its_own_errors(client)
        with (
            openai.OpenAI(base_url=url, api_key="wrong", max_retries=0) as stranger,
            pytest.raises(openai.AuthenticationError),
        ):
            stranger.models.list()


def answers_everything(client: openai.OpenAI) -> None:
    """Ask for a chat, a stream of the same, and an embedding."""
    assert {"offline/echo", "offline/embedding"} <= {model.id for model in client.models.list()}
    ask = client.chat.completions.create
    text = ask(model="offline/echo", messages=MESSAGES).choices[0].message.content
    assert text
    assert "Hello" in text
    stream = ask(model="offline/echo", messages=MESSAGES, stream=True)
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert "".join(pieces) == text
    assert len(pieces) > 1
    embeddings = client.embeddings.create(model="offline/embedding", input=["Hello", "world"])
    assert len(embeddings.data) == 2


def raises_its_own_errors(client: openai.OpenAI) -> None:
    """Ask for what there is not, then for nonsense, then for too much."""
    ask = client.chat.completions.create
    with pytest.raises(openai.NotFoundError, match="there is offline/echo"):
        ask(model="nobody/nothing", messages=MESSAGES)
    with pytest.raises(openai.BadRequestError, match="messages"):
        ask(model="offline/echo", messages=[])
    with pytest.raises(openai.RateLimitError, match="20 requests a minute"):
        [ask(model="offline/echo", messages=MESSAGES) for _ in range(200)]


@every_service
def test_the_request_after_the_last_is_refused(project: Project, combination: Combination) -> None:
    """A plan has 20 a minute: of 21 at the same time, 20 are answered."""
    add_plan(project, "twenty", 20)
    with serving(project, "--migrate") as service:
        # Another is due every three seconds; a machine that is slower than that gets more tries.
        for number in range(5):
            email = f"ada{number}@example.com"
            headers = authorization(combination, email, project.create_user(email, "twenty"))
            started = time.monotonic()
            answers = burst([service.port], 21, headers, CHAT)
            if time.monotonic() - started < 3:
                break
        else:
            pytest.fail("This machine does not answer 21 chats within three seconds.")
    assert Counter(answer.status for answer in answers) == {200: 20, 429: 1}
    (refused,) = (answer for answer in answers if answer.status == 429)
    assert json.loads(refused.body)["error"]["code"] == "rate_limit_exceeded"
    assert "\r\nretry-after: " in refused.head.lower()


@pytest.mark.parametrize(
    "combination",
    [service for service in SERVICES if (service.database, service.limiter) in SHARED_BY_MANY],
    ids=str,
)
def test_two_processes_admit_what_one_limit_allows(
    project: Project, combination: Combination
) -> None:
    """Of 500 at the same time, 60 and what becomes due, one a second, while they are answered."""
    add_plan(project, "sixty", 60)
    project.run("app", "migrate")
    headers = authorization(
        combination, "ada@example.com", project.create_user("ada@example.com", "sixty")
    )
    with ExitStack() as services:
        ports = [services.enter_context(serving(project)).port for _ in range(2)]
        started = time.monotonic()
        answers = burst(ports, 500, headers, CHAT)
        seconds = time.monotonic() - started
    statuses = Counter(answer.status for answer in answers)
    assert set(statuses) == {200, 429}, statuses
    assert 60 <= statuses[200] <= 60 + seconds


def test_all_of_the_tests_run_with_every_database_limiter_and_log_in() -> None:
    """No choice was added, renamed or taken away unnoticed."""
    services = {answers_of(service) for service in SERVICES}
    whole = {DEFAULT, *WHOLE}
    chosen = whole | BACKENDS
    assert services > chosen > whole > TRACED
    names = {re.sub(r"{%.*?%}", "", path.name) for path in (ROOT / "template/tests").iterdir()}
    assert {f"test_{name}.py" for name in OF_LOGIN} < names
    assert all(filter_names(names, f"test_{name}.py") for name in OF_PROVIDERS)
    of_whole = [service.providers for service in SERVICES if answers_of(service) in whole]
    assert {name for providers in of_whole for name in providers} == set(PROVIDERS)
    for first, second in combinations(range(3), 2):
        pairs = {(answers[first], answers[second]) for answers in services}
        assert pairs == {(answers[first], answers[second]) for answers in chosen}
