"""Every database with every limiter and authentication: its own tests pass, it starts, it answers.

tests/proofs.py says which of them run here, and with which of their tests.

Each service has an environment with its own dependencies and nothing else, and runs with the
servers that it brings.
"""

import json
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import combinations, product
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory, gettempdir

import openai
import pytest
from combinations import SERVICES, Combination
from conftest import BASE_ANSWERS
from environments import environment_with
from locking import alone
from openai.types.chat import ChatCompletionMessageParam
from processes import clean_environment, on_memory_disk
from projects import Project, Service, installed, requirements_of, serving
from proofs import (
    CHOSEN,
    DEFAULT,
    ONCE,
    OTHERS,
    RICHEST,
    TESTS,
    Parts,
    parts_of,
    service_of,
    touching_files,
    with_all_providers,
)
from servers import add_plan, admit, burst, descendants, processes
from working_tree import ROOT, render

pytestmark = pytest.mark.slow

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]
CHAT = {"model": "offline/echo", "messages": MESSAGES}
SUITE_SECONDS = 2400
DRILL_SECONDS = 1200
SHARED_BY_MANY = set(product(("postgres", "supabase"), ("redis", "database")))


def _services(services: Iterable[Combination], chosen: Collection[Parts]) -> pytest.MarkDecorator:
    """Run a test for these services; for those that are not chosen, in `make test-all` only."""
    given = [
        pytest.param(
            service,
            id=str(service),
            marks=[] if parts_of(service) in chosen else [pytest.mark.product],
        )
        for service in services
    ]
    return pytest.mark.parametrize("combination", given)


every_service = _services(SERVICES, CHOSEN)
# A log-in has no part in what a drill shows.
PAIRS = [service for service in SERVICES if service.auth == "api_key"]
SHARED_PAIRS = [pair for pair in PAIRS if (pair.database, pair.limiter) in SHARED_BY_MANY]
RICHEST_PAIR = {("postgres", "redis", "api_key")}


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


@pytest.mark.slow(minutes=10)
@pytest.mark.parametrize("combination", [with_all_providers(service_of(RICHEST))], ids=str)
def test_all_tests_of_the_richest_project_pass(
    directory: Path, python: Path, combination: Combination
) -> None:
    """As its `make test`, with the coverage that it asks for, and its `make test-gateway`."""
    project = Project(directory, python, clean_environment())
    project.run("pytest", "-q", "--ignore", "tests/gateway", "--cov", seconds=SUITE_SECONDS)
    project.run("pytest", "-q", "tests/gateway", seconds=SUITE_SECONDS)


@pytest.mark.slow(minutes=2)
@_services([service_of(parts) for parts in OTHERS if touching_files(parts)], CHOSEN)
def test_what_touches_its_choices_passes(
    directory: Path, python: Path, combination: Combination
) -> None:
    """tests/proofs.py names it; everything else is proven by the default and the richest."""
    touching = touching_files(parts_of(combination))
    paths = [path for path in (directory / "tests").rglob("test_*.py") if path.name in touching]
    project = Project(directory, python, clean_environment())
    project.run("pytest", "-q", *map(str, sorted(paths)), seconds=SUITE_SECONDS)


@pytest.mark.product
@pytest.mark.slow(minutes=10)
@pytest.mark.parametrize(
    "combination",
    [service for service in SERVICES if parts_of(service) not in (DEFAULT, RICHEST)],
    ids=str,
)
def test_all_of_its_tests_pass(directory: Path, python: Path, combination: Combination) -> None:
    """The full product."""
    project = Project(directory, python, clean_environment())
    project.run("pytest", "-q", "--ignore", "tests/gateway", "--cov", seconds=SUITE_SECONDS)
    project.run("pytest", "-q", "tests/gateway", seconds=SUITE_SECONDS)


@pytest.mark.product
@pytest.mark.slow(minutes=2)
@pytest.mark.parametrize(
    "combination", [service_of(("supabase", "memory", "api_key"))], ids=["supabase"]
)
def test_no_request_of_ten_thousand_fails_through_a_pooler(directory: Path, python: Path) -> None:
    """Twenty clients, and a PgBouncer in transaction mode; `make test` sends 400 requests."""
    if os.environ.get("CI") != "true" and not which(
        "pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin"
    ):
        pytest.skip("Install pgbouncer.")
    project = Project(directory, python, clean_environment() | {"POOLER_REQUESTS": "10000"})
    project.run("pytest", "-q", "tests/gateway/test_pooler.py", seconds=SUITE_SECONDS)


@pytest.mark.slow(minutes=2)
@_services(
    [pair for pair in PAIRS if parts_of(pair) != DEFAULT],  # whose ci.yml runs its drill
    RICHEST_PAIR,
)
def test_every_guarantee_holds_in_its_drill(template: Path, combination: Combination) -> None:
    with (
        alone(Path(gettempdir()) / "drill.lock"),  # of two, each is the other's hostile caller
        _drilling(template, combination) as drill,
    ):
        output, errors = drill.communicate(timeout=DRILL_SECONDS)
    assert output, errors
    broken = [str(finding) for finding in json.loads(output) if finding["verdict"] != "holds"]
    assert not broken, "\n".join(broken)
    assert drill.returncode == 0


@contextmanager
def _drilling(template: Path, combination: Combination) -> Iterator[subprocess.Popen[str]]:
    """The drill of a new project; it ends with the block."""
    with _generated(template, combination) as directory:
        python = environment_with(requirements_of(directory)) / "bin/python"
        with subprocess.Popen(
            [python, "-m", "drill"],
            cwd=directory,
            env=clean_environment() | {"JSON": "1"} | on_memory_disk(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as drill:
            try:
                yield drill
            finally:
                drill.terminate()


@_services(SHARED_PAIRS, RICHEST_PAIR)
def test_a_cap_is_exact_over_twenty_processes(directory: Path, python: Path) -> None:
    """Of 500 calls at once that cost their bound, exactly those that the cap pays for."""
    settings = clean_environment() | {"JSON": "1"} | on_memory_disk()
    project = Project(directory, python, settings)
    only = ("--processes", "20", "--only", "a cap that pays for 37")
    (finding,) = json.loads(project.run("drill", *only, seconds=DRILL_SECONDS))
    assert finding["seen"].startswith("37 times ok, 463 times 402 budget_exceeded")


@_services(PAIRS, {DEFAULT, *RICHEST_PAIR})
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
def test_openai_own_client_works_and_the_request_after_the_last_is_refused(
    project: Project,
) -> None:
    add_plan(project, "twenty", 20)
    with serving(project, "--migrate") as service:
        url = f"http://127.0.0.1:{service.port}/v1"
        headers = admit(project, "ada@example.com")
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
        admits_twenty_of_twenty_one(project, service)


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


def admits_twenty_of_twenty_one(project: Project, service: Service) -> None:
    """Ask 21 times at the same time, on a plan that has 20 a minute."""
    # Another is due every three seconds; a machine that is slower than that gets more tries.
    for number in range(5):
        headers = admit(project, f"ada{number}@example.com", "twenty")
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


@_services(
    [service for service in SERVICES if (service.database, service.limiter) in SHARED_BY_MANY],
    CHOSEN,
)
def test_two_processes_admit_what_one_limit_allows(project: Project) -> None:
    """Of 500 at the same time, 60 and what becomes due, one a second, while they are answered."""
    add_plan(project, "sixty", 60)
    project.run("app", "migrate")
    headers = admit(project, "ada@example.com", "sixty")
    with ExitStack() as services:
        ports = [services.enter_context(serving(project)).port for _ in range(2)]
        started = time.monotonic()
        answers = burst(ports, 500, headers, CHAT)
        seconds = time.monotonic() - started
    statuses = Counter(answer.status for answer in answers)
    assert set(statuses) == {200, 429}, statuses
    assert 60 <= statuses[200] <= 60 + seconds


def test_any_two_choices_meet_in_a_service_that_runs() -> None:
    services = {parts_of(service) for service in SERVICES}
    assert services > set(CHOSEN)
    for first, second in combinations(range(3), 2):
        pairs = {(parts[first], parts[second]) for parts in services}
        assert pairs == {(parts[first], parts[second]) for parts in CHOSEN}


def test_every_choice_names_its_tests() -> None:
    for place, tests in enumerate(TESTS):
        assert tests.keys() == {parts_of(service)[place] for service in SERVICES}
    assert ONCE.keys() == TESTS[2].keys() - {DEFAULT[2], RICHEST[2]}
    named = {name for tests in (*TESTS, ONCE) for part in tests.values() for name in part}
    there = {re.sub(r"{%.*?%}", "", path.name) for path in (ROOT / "template/tests").rglob("*.py")}
    assert {f"test_{name}.py" for name in named} <= there
