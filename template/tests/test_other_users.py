"""Another user's id on every route: the answer is that to an unknown id, after the same work."""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event

from gateway.accounts.audit import command_line
from gateway.accounts.invitations import Invitations
from gateway.db.cancel_handle import CancelHandle
from gateway.db.engine import Database
from gateway.db.tables import predictions
from gateway.telemetry.context import bound_fields
from tests.support import Service, chat
from tests.walk import UNKNOWN, create_owner, operations

REFUSED = {403, 404}
# No ids of a user's rows.
SHARED = {"name"}

Work = dict[str, list[Any]]
"""The statements of each request, by the id of the request, with the number of rows found."""


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Iterator[Work]:
    """Records the work of the database for requests, without what runs in the background."""
    seen: Work = defaultdict(list)
    local, run = threading.local(), Database._run

    async def noting(
        database: Database,
        threads: ThreadPoolExecutor,
        task: Callable[[CancelHandle], Any],
        seconds: float | None,
    ) -> Any:
        own = seen[bound_fields().get("request_id", "")]

        def in_thread(cancel_handle: CancelHandle) -> Any:
            local.own = own
            return task(cancel_handle)

        result = await run(database, threads, in_thread, seconds)
        # Some cursors do not know how many rows they found.
        own.append(len(result) if isinstance(result, Sequence) else None)
        return result

    def note(_: Connection, cursor: Any, statement: str, *__: Any) -> None:
        local.own.append((statement, cursor.rowcount))

    monkeypatch.setattr(Database, "_run", noting)
    event.listen(Engine, "after_cursor_execute", note)
    yield seen
    event.remove(Engine, "after_cursor_execute", note)


@pytest.fixture
async def victim(service: Service) -> Mapping[str, str]:
    """The ids of rows of another user, by the names of the parameters in paths."""
    user = await create_owner(service)
    client = service.client(user)
    assert (await client.post("/v1/chat/completions", json=chat())).is_success
    team = (await client.get("/v1/team")).json()["id"]
    invitations = Invitations(service.database)
    invitation = await invitations.create(team, "jane@example.com", command_line())
    (prediction,) = await service.rows(predictions)
    ids = {
        "user_id": user.id,
        "team_id": team,
        "invitation_id": invitation.id,
        "prediction_id": prediction.id,
    }
    for operation in operations(service.app):
        if operation.method == "POST" and operation.path.endswith("/keys"):
            made = await operation.call(client, operation.example())
            ids["key_id"] = made.json()["id"]
    return ids


async def test_another_users_id_is_as_an_unknown_one(
    service: Service, victim: Mapping[str, str]
) -> None:
    client = service.client(await create_owner(service))
    tried = 0
    for operation in operations(service.app):
        for name in set(operation.parameters) - SHARED:
            body = operation.example()
            theirs = await operation.call(client, body, {name: victim[name]})
            unknown = await operation.call(client, body, {name: UNKNOWN[name]})
            assert theirs.status_code in REFUSED, f"{operation}: {theirs.text}"
            assert theirs.status_code == unknown.status_code, str(operation)
            assert theirs.content == unknown.content, str(operation)
            assert _names(theirs.headers) == _names(unknown.headers), str(operation)
            tried += 1
    assert tried >= len(victim)


async def test_another_users_id_takes_the_work_of_an_unknown_one(
    work: Work, service: Service, victim: Mapping[str, str]
) -> None:
    """So the time tells nothing either. No clock is needed, which a busy machine would mislead."""
    client = service.client(await create_owner(service))
    await client.get("/v1/me")  # Notes the use of the credential.
    busy = set()
    for operation in operations(service.app):
        known = {*operation.parameters, *operation.fields} & victim.keys()
        for name in sorted(known):
            done = []
            for value in (victim[name], UNKNOWN[name]):
                body = operation.example()
                if name in operation.fields:
                    body[name] = value
                answer = await operation.call(client, body, {name: value})
                done.append(work[answer.headers["x-request-id"]])
            assert done[0] == done[1], f"{operation}: {name}"
            if any(isinstance(each, tuple) for each in done[0]):
                busy.add(name)
    assert busy >= victim.keys() - {"team_id"}  # In paths of administrators alone.


async def test_another_users_id_in_a_body_is_as_an_unknown_one(
    service: Service, victim: Mapping[str, str]
) -> None:
    client = service.client(await create_owner(service))
    for operation in operations(service.app):
        for name in operation.fields.keys() & victim.keys():
            theirs, unknown = [
                await operation.call(client, {**operation.example(), name: value})
                for value in (victim[name], UNKNOWN[name])
            ]
            assert theirs.status_code in REFUSED, f"{operation}: {theirs.text}"
            assert theirs.content == unknown.content, str(operation)


def _names(headers: Mapping[str, str]) -> set[str]:
    return {name.lower() for name in headers}
