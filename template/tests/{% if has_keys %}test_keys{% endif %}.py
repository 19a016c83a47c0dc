"""`/v1/keys`: API keys, what they are good for and when they end."""

import asyncio
import datetime as dt
import json
from collections.abc import Collection
from typing import Any

import httpx2
import pytest
from sqlalchemy import update

from app.auth.api_key.authenticator import ApiKeyAuthenticator
from gateway.accounts.api_keys import Keys, api_keys
from gateway.accounts.audit import command_line
from gateway.accounts.principals import KeyLimits, Role, Scope
from gateway.db.tables import audit, users, utc_now
from gateway.errors import DatabaseUnavailable
from tests.fixtures.service import Run
from tests.support import Service, User, chat, error_of

EVERYTHING = ["admin", "generate", "read"]
GONE = (401, "invalid_credentials", None)


async def make(client: httpx2.AsyncClient, **body: Any) -> dict[str, Any]:
    response = await client.post("/v1/keys", json={"name": "laptop", **body})
    assert response.status_code == 201
    key: dict[str, Any] = response.json()
    return key


def bearing(service: Service, key: dict[str, Any]) -> httpx2.AsyncClient:
    """A client with that key."""
    return service.client(Authorization=f"Bearer {key['secret']}")


async def test_a_new_key_works_and_its_secret_is_shown_once(
    service: Service, client: httpx2.AsyncClient, user: User
) -> None:
    key = await make(client, name="Jürgens Läptop")
    assert key["id"].startswith("key_")
    assert key["secret"].startswith(f"{service.settings.project['name']}_live_")
    assert (key["name"], key["scopes"]) == ("Jürgens Läptop", ["generate", "read"])
    assert (key["expires_at"], key["last_used_at"]) == (None, None)
    assert key["created_at"].endswith("Z")
    assert (await bearing(service, key).get("/v1/me")).json()["id"] == user.id
    listed = (await client.get("/v1/keys")).text
    assert key["id"] in listed
    assert "secret" not in listed
    assert key["secret"] not in service.log


async def test_only_a_hash_is_stored(service: Service, client: httpx2.AsyncClient) -> None:
    _, _, secret = (await make(client))["secret"].rpartition("_")
    for row in await service.rows(api_keys):
        assert secret not in repr(row)
        assert secret[:-6] not in repr(row)
        assert len(row.secret_hash) == 64


async def test_list_is_the_callers_own_newest_first(
    service: Service, client: httpx2.AsyncClient, user: User
) -> None:
    names = [(await make(client, name=name))["name"] for name in ("first", "second")]
    other = service.client(await service.create_user())
    await make(other, name="third")
    page = (await client.get("/v1/keys")).json()
    assert [key["name"] for key in page["data"]][:2] == names[::-1]
    assert [key["scopes"] for key in page["data"]][2:] == [EVERYTHING]
    assert page["next_cursor"] is None
    assert set(page["data"][0]) == {
        "id",
        "name",
        "scopes",
        "created_at",
        "expires_at",
        "last_used_at",
        *KeyLimits._fields,
    }


async def test_list_comes_in_pages(client: httpx2.AsyncClient) -> None:
    for name in ("a", "b", "c"):
        await client.post("/v1/keys", json={"name": name})
    seen, query = [], "limit=2"
    while query:
        page = (await client.get(f"/v1/keys?{query}")).json()
        seen += [key["name"] for key in page["data"]]
        query = f"limit=2&cursor={page['next_cursor']}" if page["next_cursor"] else ""
    assert seen[:3] == ["c", "b", "a"]
    assert len(seen) == 4  # the one that asks, too


async def test_a_cursor_is_good_for_its_own_list(client: httpx2.AsyncClient) -> None:
    await client.post("/v1/keys", json={"name": "a"})
    cursor = (await client.get("/v1/keys?limit=1")).json()["next_cursor"]
    response = await client.get(f"/v1/predictions?cursor={cursor}")
    assert error_of(response) == (422, "invalid_request", "cursor")


async def test_another_users_key_as_cursor_shows_own_keys(
    service: Service, client: httpx2.AsyncClient
) -> None:
    other = service.client(await service.create_user())
    own = await make(client)
    foreign = await make(other)
    newer = await make(client)
    page = (await client.get(f"/v1/keys?cursor={foreign['id']}")).json()
    assert page["data"][0]["id"] == own["id"]
    listed = {key["id"] for key in page["data"]}
    assert not listed & {foreign["id"], newer["id"]}


async def test_last_use_is_noted(service: Service, client: httpx2.AsyncClient) -> None:
    before = utc_now()
    key = await make(client)
    used = bearing(service, key)
    await used.get("/v1/me")
    first = await _last_use(client, key)
    assert first >= before
    # Not at every request: that would be a write for each.
    await used.get("/v1/me")
    assert await _last_use(client, key) == first
    earlier = first - dt.timedelta(hours=1)
    await _change(service, key, last_used_at=earlier)
    await used.get("/v1/me")
    assert await _last_use(client, key) >= first


@pytest.mark.parametrize(
    ("scopes", "statuses"),
    [
        (["generate"], (200, 403, 403, 403)),
        (["read"], (403, 200, 200, 403)),
        (["admin"], (403, 403, 403, 201)),
        (EVERYTHING, (200, 200, 200, 201)),
    ],
    ids=str,
)
async def test_a_key_is_good_for_its_scopes(
    service: Service, client: httpx2.AsyncClient, scopes: list[str], statuses: tuple[int, ...]
) -> None:
    limited = bearing(service, await make(client, scopes=scopes))
    answers = [
        await limited.post("/v1/chat/completions", json=chat()),
        await limited.get("/v1/predictions"),
        await limited.get("/v1/usage"),
        await limited.post("/v1/keys", json={"name": "x", "scopes": scopes}),
    ]
    assert tuple(answer.status_code for answer in answers) == statuses
    refused = [error_of(answer) for answer in answers if answer.status_code == 403]
    assert set(refused) <= {(403, "forbidden", None)}
    assert (await limited.get("/v1/keys")).status_code == (200 if "read" in scopes else 403)
    # Everybody may know who they are, and what is offered.
    assert (await limited.get("/v1/me")).status_code == 200
    assert (await limited.get("/v1/models")).status_code == 200


@pytest.mark.parametrize("scope", ["generate", "read"])
async def test_a_key_without_a_scope_cannot_grant_it(
    service: Service, client: httpx2.AsyncClient, scope: str
) -> None:
    limited = bearing(service, await make(client, scopes=["admin"]))
    count = len(await service.rows(api_keys))
    response = await limited.post("/v1/keys", json={"name": "x", "scopes": ["admin", scope]})
    assert error_of(response) == (403, "forbidden", None)
    assert scope in response.json()["error"]["message"]
    assert len(await service.rows(api_keys)) == count


async def test_without_the_scope_no_record_is_erased_or_rated(
    service: Service, client: httpx2.AsyncClient
) -> None:
    await client.post("/v1/chat/completions", json=chat())
    path = f"/v1/predictions/{(await service.prediction()).id}"
    reader = bearing(service, await make(client, scopes=["read"]))
    assert (await reader.delete(path)).status_code == 403
    assert (await reader.put(f"{path}/feedback", json={"rating": "up"})).status_code == 403
    record = (await client.get(path)).json()
    assert record["feedback"] is None


async def test_a_revoked_key_ends_at_once(service: Service, client: httpx2.AsyncClient) -> None:
    key, other = await make(client), await make(client)
    used = bearing(service, key)
    assert (await used.get("/v1/me")).status_code == 200
    assert (await client.delete(f"/v1/keys/{key['id']}")).status_code == 204
    assert error_of(await used.get("/v1/me")) == GONE
    assert error_of(await client.delete(f"/v1/keys/{key['id']}")) == (404, "not_found", None)
    listed = [entry["id"] for entry in (await client.get("/v1/keys")).json()["data"]]
    assert other["id"] in listed
    assert key["id"] not in listed
    assert (await bearing(service, other).get("/v1/me")).status_code == 200


async def test_a_key_may_end_itself(service: Service, client: httpx2.AsyncClient) -> None:
    key = await make(client, scopes=EVERYTHING)
    used = bearing(service, key)
    assert (await used.delete(f"/v1/keys/{key['id']}")).status_code == 204
    assert error_of(await used.get("/v1/me")) == GONE


async def test_another_users_key_is_as_good_as_none(
    service: Service, client: httpx2.AsyncClient
) -> None:
    other = service.client(await service.create_user())
    key = await make(client)
    answers = [
        await other.delete(f"/v1/keys/{name}")
        for name in (key["id"], "key_" + 26 * "0", "x" * 500, "ä", "%00", "key_%00")
    ]
    assert [error_of(answer) for answer in answers] == [(404, "not_found", None)] * 6
    assert len({answer.json()["error"]["message"] for answer in answers}) == 1
    assert (await bearing(service, key).get("/v1/me")).status_code == 200


async def test_a_key_expires(service: Service, client: httpx2.AsyncClient) -> None:
    expires = utc_now() + dt.timedelta(hours=1)
    in_another_zone = expires.astimezone(dt.timezone(dt.timedelta(hours=5.5)))
    key = await make(client, expires_at=in_another_zone.isoformat())
    assert dt.datetime.fromisoformat(key["expires_at"]) == expires
    assert key["expires_at"].endswith("Z")
    used = bearing(service, key)
    assert (await used.get("/v1/me")).status_code == 200
    await _change(service, key, expires_at=utc_now())
    assert error_of(await used.get("/v1/me")) == GONE


@pytest.mark.parametrize("later", [None, dt.timedelta(microseconds=1)], ids=["never", "later"])
async def test_a_key_makes_none_that_outlive_it(
    service: Service, client: httpx2.AsyncClient, later: dt.timedelta | None
) -> None:
    end = utc_now() + dt.timedelta(hours=1)
    used = bearing(service, await make(client, scopes=["admin"], expires_at=end.isoformat()))
    asked: dict[str, Any] = {"name": "x", "scopes": ["admin"]}
    longer = asked if later is None else {**asked, "expires_at": (end + later).isoformat()}
    assert error_of(await used.post("/v1/keys", json=longer)) == (403, "forbidden", None)
    as_long = await used.post("/v1/keys", json={**asked, "expires_at": end.isoformat()})
    assert as_long.status_code == 201


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({}, "invalid_request", "name"),
        ({"name": ""}, "invalid_request", "name"),
        ({"name": "x" * 101}, "invalid_request", "name"),
        ({"name": "a\0b"}, "invalid_request", "name"),
        ({"name": "a\x9bb"}, "invalid_request", "name"),
        ({"name": "x", "scopes": []}, "invalid_request", "scopes"),
        ({"name": "x", "scopes": ["root"]}, "invalid_request", "scopes.0"),
        ({"name": "x", "expires_at": "2020-01-01T00:00:00Z"}, "invalid_request", "expires_at"),
        ({"name": "x", "expires_at": "2999-01-01T00:00:00"}, "invalid_request", "expires_at"),
        ({"name": "x", "expires_at": "tomorrow"}, "invalid_request", "expires_at"),
        ({"name": "x", "expires_at": 2**31}, "invalid_request", "expires_at"),
        ({"name": "x", "expires_at": "2147483648"}, "invalid_request", "expires_at"),
        ({"name": "x", "requests_per_minute": True}, "invalid_request", "requests_per_minute"),
        ({"name": "x", "expires_at": "9999-12-31T23:59:59-12:00"}, "invalid_request", "expires_at"),
        ({"name": "x", "expires_at": "0001-01-01T00:00:00+14:00"}, "invalid_request", "expires_at"),
        ({"name": "x", "secret": "mine"}, "unsupported_parameter", "secret"),
    ],
    ids=str,
)
async def test_wrong_requests(
    service: Service, client: httpx2.AsyncClient, body: dict[str, Any], code: str, param: str
) -> None:
    count = len(await service.rows(api_keys))
    assert error_of(await client.post("/v1/keys", json=body)) == (422, code, param)
    assert len(await service.rows(api_keys)) == count


async def test_a_scope_that_is_named_twice_is_one(client: httpx2.AsyncClient) -> None:
    assert (await make(client, scopes=["read", "read"]))["scopes"] == ["read"]


async def test_an_outage_is_waited_for_once(
    service: Service, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests that arrive during the look-up share its answer, within a second."""
    header = str(client.headers["Authorization"])
    asked, over, lookups = asyncio.Event(), asyncio.Event(), []

    async def fail(self: Keys, key_ids: Collection[str]) -> dict[str, Any]:
        lookups.append(key_ids)
        asked.set()
        await over.wait()
        raise DatabaseUnavailable("It is gone.")

    monkeypatch.setattr(Keys, "with_owners", fail)
    keys = ApiKeyAuthenticator(Keys(service.database, "any"))
    first = asyncio.create_task(keys.authenticate(header, ""))
    await asked.wait()
    second = asyncio.create_task(keys.authenticate(header, ""))
    await asyncio.sleep(0)
    over.set()
    for answer in await asyncio.gather(first, second, return_exceptions=True):
        assert isinstance(answer, DatabaseUnavailable)
    assert len(lookups) == 1


async def _last_use(client: httpx2.AsyncClient, key: dict[str, Any]) -> dt.datetime:
    data = (await client.get("/v1/keys")).json()["data"]
    (text,) = [entry["last_used_at"] for entry in data if entry["id"] == key["id"]]
    return dt.datetime.fromisoformat(text)


async def _change(service: Service, key: dict[str, Any], **values: Any) -> None:
    change = update(api_keys).where(api_keys.c.id == key["id"]).values(**values)
    await service.database.transact(lambda connection: connection.execute(change))


@pytest.mark.parametrize(
    ("limit", "param"),
    [({"requests_per_minute": 1}, "requests"), ({"tokens_per_minute": 100}, "tokens")],
)
async def test_a_key_can_be_limited_within_its_owners_plan(
    service: Service, client: httpx2.AsyncClient, limit: dict[str, int], param: str
) -> None:
    """A chat of 99 tokens at most fits once; what it used is missing for the next."""
    limited = bearing(service, await make(client, **limit))
    assert (await limited.post("/v1/chat/completions", json=chat())).status_code == 200
    again = await limited.post("/v1/chat/completions", json=chat())
    assert error_of(again) == (429, "rate_limit_exceeded", param)
    assert again.headers[f"x-ratelimit-limit-{param}"] == str(*limit.values())
    assert (await client.post("/v1/chat/completions", json=chat())).status_code == 200


async def test_each_limited_key_counts_for_itself_and_for_its_owner(service: Service) -> None:
    client = service.client(await service.create_user("few"))
    first, second = [bearing(service, await make(client, requests_per_minute=3)) for _ in range(2)]
    asked = [first] * 4 + [second] * 3
    statuses = [
        (await asking.post("/v1/chat/completions", json=chat())).status_code for asking in asked
    ]
    assert statuses == [200, 200, 200, 429, 200, 200, 429]


async def test_a_limited_key_cannot_make_another(
    service: Service, client: httpx2.AsyncClient
) -> None:
    limited = bearing(service, await make(client, scopes=EVERYTHING, requests_per_minute=5))
    response = await limited.post("/v1/keys", json={"name": "free"})
    assert error_of(response) == (403, "forbidden", None)


@pytest.mark.parametrize("name", KeyLimits._fields)
async def test_limits_of_a_key_are_shown_and_checked(client: httpx2.AsyncClient, name: str) -> None:
    key = await make(client, **{name: 7})
    assert {field: key[field] for field in KeyLimits._fields if key[field]} == {name: 7}
    response = await client.post("/v1/keys", json={"name": "laptop", name: -1})
    assert error_of(response) == (422, "invalid_request", name)


async def test_a_disabled_user_gets_no_key_that_would_not_work(run: Run, user: User) -> None:
    await run("users", "disable", "--email", user.email)
    refused = await run("keys", "create", "--email", user.email)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert f"{user.email} is disabled" in refused.stderr


async def test_a_key_of_a_disabled_user_can_be_revoked(
    run: Run, service: Service, client: httpx2.AsyncClient, user: User
) -> None:
    key = await make(client)
    await run("users", "disable", "--email", user.email)
    assert (await run("keys", "revoke", key["id"])).exit_code == 0
    await run("users", "enable", "--email", user.email)
    assert error_of(await bearing(service, key).get("/v1/me")) == GONE
    again = await run("keys", "revoke", key["id"])
    assert (again.exit_code, again.stderr) == (1, "There is no such key.\n")


@pytest.mark.parametrize("name", ["", "x" * 101, "a\nb", "a\x9bb", "\udcff"], ids=ascii)
async def test_a_wrong_name_is_wrong_usage(
    run: Run, service: Service, user: User, name: str
) -> None:
    count = len(await service.rows(api_keys))
    result = await run("keys", "create", "--email", user.email, "--name", name)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "1 to 100 characters" in result.stderr
    assert len(await service.rows(api_keys)) == count


async def test_a_limited_key_from_the_command_line(run: Run, service: Service, user: User) -> None:
    options = [f"--{name.replace('_', '-')}" for name in KeyLimits._fields]
    given = [word for option in options for word in (option, "3")]
    result = await run("keys", "create", "--email", user.email, "--json", *given)
    key = json.loads(result.stdout)
    assert {name: key[name] for name in KeyLimits._fields} == dict.fromkeys(KeyLimits._fields, 3)
    refused = await run("keys", "create", "--email", user.email, "--requests-per-minute", "0")
    assert refused.exit_code == 2


async def test_keys_that_are_made_and_revoked_are_audited(
    service: Service, user: User, client: httpx2.AsyncClient, run: Run
) -> None:
    """Over HTTP and on the command line; the audit has neither the secret nor the name."""
    names = ["of jane", "of the command line"]
    asked = {"name": names[0], "scopes": ["read"], "expires_at": "2999-12-31T02:00:00+02:00"}
    made = await client.post("/v1/keys", json=asked)
    revoked = await client.delete(f"/v1/keys/{made.json()['id']}")
    words = ("--email", user.email, "--name", names[1], "--requests-per-minute", "7", "--json")
    other = json.loads((await run("keys", "create", *words)).stdout)
    ended = await run("keys", "revoke", other["id"])
    assert ended.stdout == f"{other['id']} is revoked.\n"
    rows = await service.rows(audit)
    *_, first, second, third, fourth = rows
    key, by_command = f"key:{made.json()['id']}", f"key:{other['id']}"
    assert [(row.action, row.target) for row in (first, second, third, fourth)] == [
        *(("create", key), ("revoke", key), ("create", by_command), ("revoke", by_command))
    ]
    expires = "2999-12-31T00:00:00Z"
    assert first.after == {"user_id": user.id, "scopes": ["read"], "expires_at": expires}
    assert third.after == {
        "user_id": user.id,
        "scopes": ["generate", "read"],
        "requests_per_minute": 7,
    }
    assert second.before == fourth.before == {"user_id": user.id}
    assert (first.actor_id, second.actor_id) == (user.id, user.id)
    assert second.request_id == revoked.headers["X-Request-ID"]
    assert third.operator == fourth.operator == command_line().operator
    texts = [*names, made.json()["secret"], other["secret"], user.email]
    assert not [row for row in rows if any(text in str(row._asdict()) for text in texts)]


async def test_a_key_of_the_command_line_may_expire(service: Service, user: User, run: Run) -> None:
    words = ("keys", "create", "--email", user.email, "--json", "--expires-at")
    key = json.loads((await run(*words, "2999-12-31")).stdout)
    assert key["expires_at"] == "2999-12-31T00:00:00Z"
    past = await run(*words, "2001-01-01T00:00:00Z")
    assert past.exit_code == 1
    assert "--expires-at has to lie in the future." in past.stderr


async def test_two_keys_live_while_one_replaces_the_other(
    service: Service, user: User, run: Run
) -> None:
    words = ("keys", "create", "--email", user.email, "--json")
    old, new = [json.loads((await run(*words)).stdout) for _ in range(2)]
    clients = [bearing(service, key) for key in (old, new)]
    assert [(await client.get("/v1/me")).status_code for client in clients] == [200, 200]
    await run("keys", "revoke", old["id"])
    assert [(await client.get("/v1/me")).status_code for client in clients] == [401, 200]


async def test_an_administrator_ends_all_keys_of_a_user(
    service: Service, user: User, run: Run
) -> None:
    admin = service.client(await service.create_user(role=Role.ADMIN))
    path = f"/v1/admin/users/{user.id}/keys"
    assert (await service.client(user).delete(path)).status_code == 403
    assert (await admin.delete(path)).status_code == 204
    assert (await service.client(user).get("/v1/me")).status_code == 401
    other = await service.create_user()
    result = await run("keys", "revoke-all", "--email", other.email)
    assert (result.exit_code, "1 key revoked" in result.stdout) == (0, True)
    assert (await service.client(other).get("/v1/me")).status_code == 401


@pytest.mark.parametrize(
    "limits", [KeyLimits(requests_per_minute=1), KeyLimits(daily_budget_nano_usd=1)]
)
async def test_a_key_with_limits_of_its_own_makes_no_users_with_a_key(
    service: Service, limits: KeyLimits
) -> None:
    admin = await service.create_user(role=Role.ADMIN)
    keys = Keys(service.database, "acme")
    secret, _ = await keys.create(admin.id, "x", list(Scope), command_line(), limits=limits)
    client = service.client(Authorization=f"Bearer {secret}")
    answer = await client.post("/v1/admin/users", json={"email": "new@example.com", "plan": "few"})
    assert error_of(answer) == (403, "forbidden", None)
    assert [row.id for row in await service.rows(users)] == [admin.id]


async def test_a_new_users_key_has_no_more_scopes_and_no_longer_life_than_its_makers(
    service: Service,
) -> None:
    admin = await service.create_user(role=Role.ADMIN)
    keys, ends = Keys(service.database, "acme"), utc_now() + dt.timedelta(hours=1)
    less, _ = await keys.create(admin.id, "x", [Scope.ADMIN], command_line())
    client = service.client(Authorization=f"Bearer {less}")
    body = {"email": "new@example.com", "plan": "few"}
    assert error_of(await client.post("/v1/admin/users", json=body))[0] == 403
    short, _ = await keys.create(admin.id, "x", list(Scope), command_line(), ends)
    client = service.client(Authorization=f"Bearer {short}")
    made = (await client.post("/v1/admin/users", json=body)).json()
    theirs = [row for row in await service.rows(api_keys) if row.user_id == made["id"]]
    assert [row.expires_at for row in theirs] == [ends]
