"""A canary in the place of a secret and of content, put through every route: found nowhere."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest

from gateway.accounts.principals import Role
from gateway.db.tables import alerts, audit
from tests.support import Service, User, unique
from tests.walk import UNKNOWN, Operation, create_owner, operations

CANARY = unique("canary")
# As the name of a parameter: an error names what it does not know.
NAME = unique("name")


@pytest.fixture
async def owner(service: Service) -> User:
    return await create_owner(service, Role.ADMIN, f"{CANARY}@example.com")


async def test_canaries_are_found_in_no_log_line_metric_error_or_audit_row(
    service: Service, owner: User
) -> None:
    answers = [answer async for answer in _answers(service, owner)]
    assert {answer.status_code // 100 for answer in answers} >= {2, 4}
    secrets = [*service.settings.secret_values(), owner.credential]
    secrets.append(owner.headers["Authorization"].partition(" ")[2])
    told = [service.log, (await service.client().get("/metrics")).text]
    told += [str(row) for table in (audit, alerts) for row in await service.rows(table)]
    told += [str(answer.headers) for answer in answers]
    for text in (*told, *(answer.text for answer in answers if answer.is_error)):
        assert CANARY not in text, text
    assert not [text for text in told if NAME in text]
    for text in (*told, *(answer.text for answer in answers)):
        assert not [secret for secret in secrets if secret in text], text


async def _answers(service: Service, owner: User) -> Any:
    """The answers to canaries in each part of a request, with and without a credential."""
    headers = {"X-Other": CANARY, "Referer": f"http://localhost/{CANARY}", "User-Agent": CANARY}
    cookies = {"session": CANARY}
    clients = [
        service.client(owner, **headers),
        service.client(None, **headers, Authorization=f"Bearer {CANARY}"),
        service.client(None, **headers, Authorization=f"Basic {CANARY}"),
    ]
    for client in clients:
        client.cookies.update(cookies)
    for operation in operations(service.app):
        for number, client in enumerate(clients):
            # A wrong credential ends a request before the rest of it is read.
            for request in islice(_requests(operation), 1 if number else None):
                yield await client.request(operation.method, **request)


def _requests(operation: Operation) -> Iterator[dict[str, Any]]:
    """Requests with the canary in the path, the query, the body and each of its fields."""
    url, body = operation.url(), operation.example(CANARY)
    yield {"url": operation.url(dict.fromkeys(UNKNOWN, CANARY)), "json": body}
    yield {"url": url, "json": body}
    yield {"url": url, "json": body, "params": {"cursor": CANARY, "next": CANARY}}
    yield {"url": url, "json": body, "params": {NAME: CANARY}}
    yield {"url": url, "content": CANARY, "headers": {"Content-Type": "application/json"}}
    yield {"url": url, "data": {"csrf_token": CANARY, "next": CANARY, NAME: CANARY}}
    if body is not None:
        yield {"url": url, "json": {**body, NAME: CANARY}}
        for name in operation.fields:
            yield {"url": url, "json": {**body, name: CANARY}}
            yield {"url": url, "json": {**body, name: [{NAME: CANARY}]}}
