"""`python -m app …`: exit codes, what a person reads, and what a program reads."""

import json
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx2
import pytest
import typer.main
from aiohttp import web
from aiohttp.test_utils import RawTestServer

from app import wiring
from app.cli.main import app
from app.settings import Settings
from gateway.accounts.users import Users
from gateway.config import ROOT
from gateway.db.revisions import pending
from gateway.errors import DatabaseUnavailable
from tests.fixtures.service import Authorize, Run
from tests.ports import kept_port
from tests.support import Service, User, chat, error_of, unique

CHAT = "/v1/chat/completions"


async def _created(run: Run, *options: str) -> dict[str, Any]:
    email = f"{unique('jane')}@example.com"
    result = await run("users", "create", "--email", email, "--json", *options)
    assert result.exit_code == 0
    user: dict[str, Any] = json.loads(result.stdout)
    assert user["email"] == email
    return user


Ask = Callable[[dict[str, Any]], Awaitable[httpx2.Response]]


@pytest.fixture
def ask(service: Service, authorize: Authorize) -> Ask:
    """Asks as a user that was created."""

    async def answer(user: dict[str, Any]) -> httpx2.Response:
        header = await authorize(user["email"], user["credential"])
        return await service.client(Authorization=header).post(CHAT, json=chat())

    return answer


def test_a_command_loads_neither_the_web_framework_nor_alembic() -> None:
    """They take as long to load as a command takes otherwise."""
    code = "import sys, app.cli; print({'fastapi', 'alembic'} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert result.stdout == "set()\n"


async def test_a_new_user_can_ask_at_once(run: Run, service: Service, ask: Ask) -> None:
    user = await _created(run, "--plan", "few", "--role", "admin")
    assert (user["role"], user["plan"]) == ("admin", "few")
    response = await ask(user)
    assert response.status_code == 200
    assert response.headers["x-ratelimit-limit-requests"] == "5"


async def test_a_person_reads_the_credential_once(run: Run) -> None:
    result = await run("users", "create", "--email", " Zoe@Example.com ", "--plan", "few")
    assert result.stdout.startswith("zoe@example.com: ")
    credential = result.stdout.split()[1]
    listed = await run("users", "list")
    assert re.fullmatch(r"usr_\w+  zoe@example\.com  user  few\n", listed.stdout)
    assert credential not in listed.output
    await run("users", "disable", "--email", "zoe@example.com")
    assert (await run("users", "list")).stdout.endswith("  few  disabled\n")


async def test_users_are_listed_as_json(run: Run) -> None:
    users = [await _created(run, "--plan", "few") for _ in range(2)]
    listed = json.loads((await run("users", "list", "--json")).stdout)
    assert [user["id"] for user in listed] == [user["id"] for user in users]
    own = {"id", "email", "role", "plan", "created_at", "disabled_at"}
    raised = {"raised_daily_nano_usd", "raised_monthly_nano_usd", "raised_until"}
    assert set(listed[0]) == own | raised | {"team_id", "team_role"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--email", "nobody", "--plan", "few"], "jane@example.com"),
        (["--email", "a@b", "--plan", "few"], "jane@example.com"),
        (["--email", "a@example.com", "--plan", "gold"], "no such plan in plans.toml; it has"),
        (["--email", "x" * 300 + "@example.com", "--plan", "few"], "jane@example.com"),
        (["--email", "a:b@example.com", "--plan", "few"], "without colons"),
        (["--email", "a\u202eb@example.com", "--plan", "few"], "invisible characters"),
        (["--email", "a@example\x85.com", "--plan", "few"], "invisible characters"),
        (["--email", "a@exam\x9bple.com", "--plan", "few"], "invisible characters"),
    ],
    ids=ascii,
)
async def test_a_user_that_cannot_be_is_refused(run: Run, options: list[str], words: str) -> None:
    result = await run("users", "create", *options)
    assert (result.exit_code, result.stdout) == (1, "")
    assert words in result.stderr
    assert json.loads((await run("users", "list", "--json")).stdout) == []


async def test_an_address_is_taken_once(run: Run) -> None:
    user = await _created(run, "--plan", "few")
    result = await run("users", "create", "--email", user["email"].upper(), "--plan", "few")
    assert result.exit_code == 1
    assert result.stderr == "There is a user with this e-mail address already.\n"


async def test_role_and_plan_change_at_once(run: Run, service: Service, ask: Ask) -> None:
    user = await _created(run, "--plan", "few")
    for words, said in (
        (["set-plan", "--plan", "many"], "plan many, was plan few"),
        (["set-plan", "--plan", "many"], "plan many already"),
        (["set-role", "--role", "admin"], "role admin, was role user"),
    ):
        changed = await run("users", *words, "--email", user["email"])
        assert (changed.exit_code, changed.stdout) == (0, f"{user['email']}: {said}.\n")
    (listed,) = json.loads((await run("users", "list", "--json")).stdout)
    assert (listed["plan"], listed["role"]) == ("many", "admin")
    assert (await ask(user)).headers["x-ratelimit-limit-requests"] == "6000"
    assert (await run("users", "set-plan", "--plan", "x", "--email", user["email"])).exit_code == 1


async def test_a_disabled_user_may_nothing_from_then_on(
    run: Run, service: Service, ask: Ask
) -> None:
    user = await _created(run, "--plan", "few")
    assert (await ask(user)).status_code == 200
    shown = await run("users", "disable", "--email", user["email"])
    assert (shown.exit_code, shown.stdout) == (0, f"{user['email']}: disabled, was enabled.\n")
    assert error_of(await ask(user)) == (401, "invalid_credentials", None)
    assert await service.rows_count() == 2
    enabled = await run("users", "enable", "--email", user["email"], "--json")
    assert json.loads(enabled.stdout)["disabled_at"] is None
    assert (await ask(user)).status_code == 200


@pytest.mark.parametrize(
    "words",
    [["set-role", "--role", "admin"], ["set-plan", "--plan", "few"], ["disable"], ["enable"]],
)
async def test_an_unknown_user_is_named(run: Run, words: list[str]) -> None:
    result = await run("users", *words, "--email", "nobody@example.com")
    assert result.exit_code == 1
    assert "There is no such user; `python -m app users list`" in result.stderr


async def test_wrong_usage_exits_2(run: Run) -> None:
    for words in ((), ("unknown",), ("users",), ("users", "create"), ("serve", "--fast"), ("ask",)):
        assert (await run(*words)).exit_code == 2, words


NO_TEXT = "jane\udcff@example.com"
"""As an argument arrives whose bytes are not UTF-8."""


@pytest.mark.parametrize(
    "words",
    [
        ["users", "create", "--email", NO_TEXT],
        ["users", "enable", "--email", NO_TEXT],
        ["usage", "--user", NO_TEXT],
        ["stop", "--reason", NO_TEXT],
        ["ask", NO_TEXT],
        ["ask", "hi", "--url", "foo"],
        ["ask", "hi", "--url", "http://127.0.0.1:99999"],
    ],
    ids=ascii,
)
async def test_an_argument_that_can_be_of_no_use_exits_2(run: Run, words: list[str]) -> None:
    result = await run(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Invalid value" in result.stderr


async def test_help_names_every_command(run: Run) -> None:
    result = await run("--help")
    assert result.exit_code == 0
    names = ("serve", "migrate", "doctor", "users", "ask", "stop", "start", "usage")
    assert all(name in result.stdout for name in names)


async def test_help_shows_the_names_of_all_options(run: Run) -> None:
    """Also the long ones, in 80 columns."""

    def walk(command: Any, *words: str) -> Iterator[tuple[tuple[str, ...], list[str]]]:
        yield words, [name for each in command.params for name in each.opts if name[:2] == "--"]
        for name, child in getattr(command, "commands", {}).items():
            yield from walk(child, *words, name)

    shown = dict(walk(typer.main.get_command(app)))
    assert ("users", "create") in shown
    for words, names in shown.items():
        text = (await run(*words, "--help")).stdout
        assert [name for name in names if name not in text] == []


def test_without_its_dependencies_it_says_which_python_has_them() -> None:
    """What an advice says is typed as it is, with the Python of the machine."""
    without = [sys.executable, "-S", "-m", "app", "users", "list"]
    result = subprocess.run(without, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.endswith("Run: .venv/bin/python -m app users list\n")
    assert len(result.stderr.splitlines()) == 1


async def test_migrate_makes_the_tables(
    run: Run, empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database_url)
    assert (await run("users", "list")).exit_code == 1
    shown = [(await run("migrate")).stdout for _ in range(2)]
    assert shown[0].startswith("Applied 0001, ")
    assert shown[1] == "The tables are up to date already.\n"
    database = wiring.database.open_database(Settings(_env_file=None).gateway)
    assert not await pending(database)
    assert await Users(database).list() == []
    await database.close()


async def test_a_dead_database_is_told(
    run: Run, dead_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", dead_database_url)
    for words in (["migrate"], ["users", "list"]):
        result = await run(*words)
        assert result.exit_code == 1
        assert "s DATABASE_URL right" in result.stderr


async def test_ask_shows_the_answer_its_cost_and_what_is_left(run: Run, service: Service) -> None:
    result = await run("ask", "one two", "--url", service.url)
    assert result.exit_code == 0
    assert result.stdout.strip() == "You said: one two"
    cost = (await service.prediction()).cost_nano_usd
    assert f"It cost {cost / 1e9:.9f} USD; left this minute: 0 requests." in result.stderr


async def test_ask_again_is_the_same_user_and_meets_the_limit(run: Run, service: Service) -> None:
    assert (await run("ask", "one", "--url", service.url)).exit_code == 0
    result = await run("ask", "one", "--url", service.url)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "limit of 1 request a minute" in result.stderr
    assert len(json.loads((await run("users", "list", "--json")).stdout)) == 1


async def test_ask_tells_what_the_service_refuses(run: Run, service: Service) -> None:
    result = await run("ask", "one", "--model", "none", "--url", service.url)
    assert result.exit_code == 1
    assert "offline/echo" in result.stderr


@pytest.mark.parametrize(
    "other",
    [
        web.Response(text="<html>", content_type="text/html"),
        web.Response(text="<html>", content_type="text/html", status=501),
        web.json_response({"detail": "Not Found"}, status=404),
        web.json_response(["error"]),
    ],
    ids=["page", "error-page", "json", "list"],
)
async def test_ask_when_another_program_answers(run: Run, other: web.Response) -> None:
    async def answer(_: web.BaseRequest) -> web.Response:
        return other

    async with RawTestServer(answer) as server:
        url = str(server.make_url(""))
        result = await run("ask", "one", "--url", url)
    assert result.exit_code == 1
    assert result.stderr == f"What answers at {url} is not this service.\n"


async def test_ask_when_the_answer_breaks_off(run: Run) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"X-Prediction-ID": "pred_1"})
        await response.prepare(request)
        await response.write(b'data: {"choices": [{"delta": {"content": "fi"}}]}\n\n')
        assert request.transport is not None
        request.transport.close()
        return response

    async with RawTestServer(answer) as server:
        url = str(server.make_url(""))
        result = await run("ask", "one", "--url", url)
    assert (result.exit_code, result.stdout) == (1, "fi\n")
    assert result.stderr == f"The answer of {url}/ broke off; its log may say why.\n"


async def test_ask_when_the_cost_cannot_be_read(
    run: Run, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise DatabaseUnavailable("The database does not answer.")

    monkeypatch.setattr(service.engine.records, "get", fail)
    result = await run("ask", "one", "--url", service.url)
    assert (result.exit_code, result.stdout) == (1, "You said: one\n")
    assert result.stderr == "What it cost cannot be read: The database does not answer.\n"


async def test_ask_when_nothing_answers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with kept_port() as port:
        monkeypatch.setenv("PORT", str(port))
        result = await run("ask", "one")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Nothing answers at http://127.0.0.1:{port}/; start it")


async def test_ask_a_host_that_cannot_be(run: Run) -> None:
    result = await run("ask", "one", "--url", "http://a..b")
    assert result.exit_code == 2
    assert "must be an address such as" in result.stderr


async def test_a_credential_can_be_replaced_on_the_command_line(
    run: Run, user: User, ask: Ask
) -> None:
    """By whatever this service was built with: `keys create`, or `passwords reset`."""
    groups = {"keys", "passwords"} & set((await run("--help")).stdout.split())
    if not groups:
        pytest.skip("credentials are made elsewhere")
    (group,) = groups
    command = {"keys": "create", "passwords": "reset"}[group]
    result = await run(group, command, "--email", user.email, "--json")
    assert result.exit_code == 0
    shown = json.loads(result.stdout)
    credential = shown.get("secret") or shown["credential"]
    made = {"email": user.email, "credential": credential}
    assert (await ask(made)).status_code == 200
    refused = await run(group, command, "--email", "nobody@example.com")
    assert refused.exit_code == 1


async def test_a_record_is_shown_with_its_attempts(
    run: Run, service: Service, client: httpx2.AsyncClient, user: User
) -> None:
    prediction_id = (await client.post(CHAT, json=chat())).headers["X-Prediction-ID"]
    shown = json.loads((await run("predictions", "show", prediction_id, "--json")).stdout)
    record = (await client.get(f"/v1/predictions/{prediction_id}")).json()
    assert record.items() <= shown.items()
    assert (shown["user_id"], len(shown["attempts"])) == (user.id, 1)
    for_a_person = (await run("predictions", "show", prediction_id)).stdout
    assert f"id: {prediction_id}\n" in for_a_person
    assert "You said: one two" in for_a_person


async def test_an_erased_record_is_shown_without_content(
    run: Run, service: Service, client: httpx2.AsyncClient
) -> None:
    prediction_id = (await client.post(CHAT, json=chat())).headers["X-Prediction-ID"]
    await client.delete(f"/v1/predictions/{prediction_id}")
    shown = json.loads((await run("predictions", "show", prediction_id, "--json")).stdout)
    assert (shown["input"], shown["output"]) == (None, None)
    assert shown["cost_nano_usd"] > 0


@pytest.mark.parametrize("prediction_id", ["pred_" + 32 * "0", "other"])
async def test_no_record_is_a_sentence(run: Run, service: Service, prediction_id: str) -> None:
    result = await run("predictions", "show", prediction_id, "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "There is no such prediction.\n"
