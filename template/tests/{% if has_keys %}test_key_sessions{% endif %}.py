"""Browser sessions of API keys: a session may do what its key may, and ends with it."""

import datetime as dt
from typing import Any

import httpx2
import pytest
from sqlalchemy import update

from gateway.accounts.api_keys import Keys, api_keys
from gateway.accounts.audit import command_line
from gateway.accounts.principals import KeyLimits, Scope
from gateway.db.tables import sessions, utc_now
from tests.sign_in import signed_in
from tests.support import Service, User, chat, error_of

INVALID = (401, "invalid_credentials", None)
ALL = tuple(Scope)


async def make(service: Service, user: User, *scopes: Scope, **given: Any) -> tuple[str, User]:
    """The id of a new key, and its user with this key as the credential."""
    keys = Keys(service.database, "acme")
    secret, row = await keys.create(user.id, "x", scopes or ALL, command_line(), **given)
    return row.id, user._replace(credential=secret)


async def test_a_revoked_key_ends_its_sessions_and_no_others(service: Service, user: User) -> None:
    key_id, with_key = await make(service, user)
    browser, other = await signed_in(service, with_key), await signed_in(service, user)
    assert (await other.delete(f"/v1/keys/{key_id}")).status_code == 204
    assert error_of(await browser.get("/v1/me")) == INVALID
    assert (await other.get("/v1/me")).status_code == 200
    (left,) = await service.rows(sessions)
    assert left.key_id != key_id


async def test_a_session_ends_with_its_key(service: Service, user: User) -> None:
    ends = utc_now() + dt.timedelta(hours=1)
    key_id, with_key = await make(service, user, expires_at=ends)
    browser = await signed_in(service, with_key)
    (row,) = await service.rows(sessions)
    assert row.expires_at == ends
    # Also if the key ends earlier than it did when the session began.
    over = utc_now() - dt.timedelta(seconds=1)
    await service.write(update(api_keys).where(api_keys.c.id == key_id).values(expires_at=over))
    assert error_of(await browser.get("/v1/me")) == INVALID


@pytest.mark.parametrize("scope", [Scope.READ, Scope.GENERATE])
async def test_a_session_has_the_scopes_of_its_key(
    service: Service, user: User, scope: Scope
) -> None:
    _, with_key = await make(service, user, scope)
    browser = await signed_in(service, with_key)
    generated = await browser.post("/v1/chat/completions", json=chat())
    assert generated.status_code == (200 if scope is Scope.GENERATE else 403)
    assert (await browser.get("/v1/predictions")).status_code == (
        200 if scope is Scope.READ else 403
    )
    made = await browser.post("/v1/keys", json={"name": "more"})
    assert error_of(made) == (403, "forbidden", None)


async def test_a_session_is_within_the_limits_of_its_key(service: Service, user: User) -> None:
    _, with_key = await make(service, user, limits=KeyLimits(requests_per_minute=1))
    browser = await signed_in(service, with_key)
    answers: list[httpx2.Response] = [
        await browser.post("/v1/chat/completions", json=chat()) for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [200, 429]
    made = await browser.post("/v1/keys", json={"name": "more"})
    assert error_of(made) == (403, "forbidden", None)


async def test_a_session_counts_as_use_of_its_key(service: Service, user: User) -> None:
    key_id, with_key = await make(service, user)
    browser = await signed_in(service, with_key)
    unused = update(api_keys).where(api_keys.c.id == key_id).values(last_used_at=None)
    await service.write(unused)
    await browser.get("/v1/me")
    keys = {row.id: row for row in await service.rows(api_keys)}
    assert keys[key_id].last_used_at is not None
