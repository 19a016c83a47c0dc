"""`/v1/predictions`: any model with any input, and the caller's own records."""

import datetime as dt
from typing import Any

import httpx2
import pytest

from gateway.db.tables import predictions
from gateway.json_text import encode
from gateway.ledger.records import Records
from tests.fixtures.service import Start
from tests.support import SECRET_KEY, Service, chat, error_of, unique

PROMPT = {"model": "offline/echo", "input": {"prompt": "one two"}}
IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,x"}}]}
MESSAGES = chat("one two")["messages"]
NOWHERE = "pred_" + 26 * "0"


async def ask(client: httpx2.AsyncClient, **changes: Any) -> dict[str, Any]:
    answer: dict[str, Any] = (await client.post("/v1/predictions", json=PROMPT | changes)).json()
    return answer


async def test_waiting_answers_the_whole_record(
    service: Service, client: httpx2.AsyncClient
) -> None:
    response = await client.post("/v1/predictions", json=PROMPT)
    record = response.json()
    row = await service.prediction()
    assert response.status_code == 201
    assert response.headers["X-Prediction-ID"] == record["id"] == row.id
    assert response.headers["x-served-model"] == "offline/echo"
    assert "x-ratelimit-remaining-requests" in response.headers
    assert (record["model"], record["served_model"]) == ("offline/echo", "offline/echo")
    assert (record["status"], record["outcome"], record["error"]) == ("succeeded", "ok", None)
    assert record["input"] == {"prompt": "one two"}
    assert record["output"]["choices"][0]["message"]["content"] == "You said: one two"
    assert record["output"]["model"] == "offline/echo"
    none = {"cached_input_tokens": 0, "cache_write_tokens": 0, "outputs": 0}
    assert record["usage"] == {"input_tokens": 2, "output_tokens": 5, "seconds": 0, **none}
    assert record["cost_nano_usd"] == row.cost_nano_usd > 0
    assert record["latency_ms"] >= 0
    assert record["feedback"] is None
    assert _time(record["created_at"]) <= _time(record["finished_at"])


async def test_the_record_can_be_read_again(client: httpx2.AsyncClient) -> None:
    created = await ask(client)
    record = (await client.get(f"/v1/predictions/{created['id']}")).json()
    assert record == created


async def test_who_does_not_wait_reads_the_same_input(client: httpx2.AsyncClient) -> None:
    later = {"Prefer": "respond-async"}
    created = await client.post("/v1/predictions", json=PROMPT, headers=later)
    assert created.status_code == 202
    assert created.json()["input"] == PROMPT["input"]


@pytest.mark.parametrize(
    ("prefer", "status"),
    [
        ("Respond-Async", 202),
        ("wait=5, respond-async", 202),
        ("respond-async; foo=bar,wait=5", 202),
        ("respond-asyncx", 201),
        ("wait=5; respond-async", 201),
    ],
)
async def test_what_a_client_prefers(client: httpx2.AsyncClient, prefer: str, status: int) -> None:
    response = await client.post("/v1/predictions", json=PROMPT, headers={"Prefer": prefer})
    assert response.status_code == status


async def test_a_chat_takes_messages_and_an_embedding_its_input(
    client: httpx2.AsyncClient,
) -> None:
    chatted = await ask(client, input={"messages": MESSAGES, "max_tokens": 1})
    assert chatted["outcome"] == "truncated"
    embedded = await ask(client, model="offline/embedding", input={"input": "one"})
    assert embedded["output"]["data"][0]["index"] == 0


@pytest.mark.parametrize(
    ("given", "code", "param"),
    [
        ({}, "invalid_request", "input.messages"),
        ({"prompt": 1}, "invalid_request", "input.messages"),
        ({"prompt": "one", "messages": MESSAGES}, "unsupported_parameter", "input.prompt"),
        ({"messages": []}, "invalid_request", "input.messages"),
        ({"prompt": "one", "webhook": "x"}, "unsupported_parameter", "input.webhook"),
        ({"prompt": "one", "max_tokens": 65}, "request_too_large", "input.max_tokens"),
        ({"prompt": "x" * 2001}, "request_too_large", "input.prompt"),
        ({"prompt": "one", "store": True}, "unsupported_parameter", "input.store"),
        ({"messages": [IMAGE]}, "invalid_request", "input.messages.0.content.0"),
        ({"prompt": "one", "stream": True}, "unsupported_parameter", "input.stream"),
        ([], "invalid_request", "input"),
    ],
)
async def test_input_is_checked_like_that_of_its_route(
    service: Service, client: httpx2.AsyncClient, given: Any, code: str, param: str
) -> None:
    response = await client.post("/v1/predictions", json=PROMPT | {"input": given})
    assert error_of(response) == (422, code, param)
    assert await service.rows_count() == 0


async def test_what_the_provider_refuses_is_named_in_the_body(client: httpx2.AsyncClient) -> None:
    given = {"input": ["one"] * 600, "dimensions": 1000}
    body = {"model": "offline/embedding", "input": given}
    response = await client.post("/v1/predictions", json=body)
    assert error_of(response) == (422, "invalid_request", "input.dimensions")


async def test_unknown_model(client: httpx2.AsyncClient) -> None:
    response = await client.post("/v1/predictions", json=PROMPT | {"model": "none"})
    assert error_of(response) == (404, "model_not_found", "model")


async def test_pages_are_newest_first_and_complete(client: httpx2.AsyncClient) -> None:
    ids = [(await ask(client))["id"] for _ in range(5)]
    first = (await client.get("/v1/predictions?limit=2")).json()
    second = (await client.get(f"/v1/predictions?limit=2&cursor={first['next_cursor']}")).json()
    newest = (await ask(client))["id"]
    third = (await client.get(f"/v1/predictions?limit=2&cursor={second['next_cursor']}")).json()
    pages = [record["id"] for page in (first, second, third) for record in page["data"]]
    assert pages == ids[::-1]
    assert third["next_cursor"] is None
    whole = (await client.get("/v1/predictions")).json()
    assert [record["id"] for record in whole["data"]] == [newest, *ids[::-1]]
    assert whole["next_cursor"] is None


async def test_a_page_of_long_records_is_shorter(
    service: Service, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [(await ask(client))["id"] for _ in range(5)]
    row, *_ = await service.rows(predictions)
    size = len(encode(row.input)) + len(encode(row.output))
    rooms: list[tuple[int, list[int]]] = [(1, [1] * 5), (2 * size, [2, 2, 1]), (9 * size, [5])]
    for room, expected in rooms:
        monkeypatch.setattr("gateway.db.pagination.PAGE_CHARACTERS", room)
        pages: list[list[str]] = []
        cursor: str | None = ""
        while cursor is not None:
            page = (await client.get(f"/v1/predictions?limit=5{cursor}")).json()
            pages.append([record["id"] for record in page["data"]])
            cursor = page["next_cursor"] and f"&cursor={page['next_cursor']}"
        assert [identifier for page in pages for identifier in page] == made[::-1]
        assert [len(page) for page in pages] == expected


async def test_an_exact_page_has_no_successor(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/v1/predictions?limit=1")).json() == {"data": [], "next_cursor": None}
    await ask(client)
    assert (await client.get("/v1/predictions?limit=1")).json()["next_cursor"] is None


@pytest.mark.parametrize("limit", [0, -1, 101, "many", "", "1_0", "1.0", "%2B5", "%205"])
async def test_page_size_is_bounded(client: httpx2.AsyncClient, limit: object) -> None:
    response = await client.get(f"/v1/predictions?limit={limit}")
    assert error_of(response) == (422, "invalid_request", "limit")


@pytest.mark.parametrize(
    "cursor",
    [
        *["", "x", "ä", "%00", "pred_", NOWHERE, f"{NOWHERE}000000%0A", f"{NOWHERE}00000G"],
        *[f"{NOWHERE}0000000", f"PRED_{32 * '0'}", 32 * "0"],
        *[f"{prefix}_{32 * '0'}" for prefix in ("usr", "key", "aud", "att")],
    ],
)
async def test_a_cursor_of_another_list_or_form_is_refused(
    client: httpx2.AsyncClient, cursor: str
) -> None:
    response = await client.get(f"/v1/predictions?cursor={cursor}")
    assert error_of(response) == (422, "invalid_request", "cursor")


async def test_another_users_id_as_cursor_reveals_nothing(
    service: Service, client: httpx2.AsyncClient
) -> None:
    other = service.client(await service.create_user())
    older = await ask(client)
    foreign = (await ask(other))["id"]
    newer = await ask(client)
    unknown = foreign[:-1] + ("0" if foreign[-1] != "0" else "1")
    pages = [
        (await client.get(f"/v1/predictions?cursor={cursor}")).json()
        for cursor in (foreign, unknown)
    ]
    assert pages[0] == pages[1] == {"data": [older], "next_cursor": None}
    mine = (await other.get(f"/v1/predictions?cursor={newer['id']}")).json()
    assert [record["id"] for record in mine["data"]] == [foreign]


async def test_a_cursor_outlives_its_record(client: httpx2.AsyncClient) -> None:
    ids = [(await ask(client))["id"] for _ in range(3)]
    cursor = (await client.get("/v1/predictions?limit=1")).json()["next_cursor"]
    await client.delete(f"/v1/predictions/{cursor}")
    page = (await client.get(f"/v1/predictions?cursor={cursor}")).json()
    assert [record["id"] for record in page["data"]] == [ids[1], ids[0]]


async def test_cursors_outlive_a_new_secret_key(start: Start) -> None:
    before = await start()
    user = await before.create_user()
    ids = [(await ask(before.client(user)))["id"] for _ in range(2)]
    page = (await before.client(user).get("/v1/predictions?limit=1")).json()
    await before.stop()
    after = await start(secret_key=SECRET_KEY[::-1], secret_key_previous=SECRET_KEY)
    path = f"/v1/predictions?cursor={page['next_cursor']}"
    (record,) = (await after.client(user).get(path)).json()["data"]
    assert record["id"] == ids[0]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("DELETE", "", None),
        ("PUT", "/feedback", {"rating": "up"}),
    ],
)
async def test_another_users_record_is_as_good_as_none(
    service: Service, client: httpx2.AsyncClient, method: str, path: str, body: Any
) -> None:
    other = service.client(await service.create_user())
    record = await ask(client)
    answers = [
        await other.request(method, f"/v1/predictions/{name}{path}", json=body)
        for name in (record["id"], NOWHERE, "x" * 500)
    ]
    assert [error_of(answer) for answer in answers] == [(404, "not_found", None)] * 3
    assert len({answer.json()["error"]["message"] for answer in answers}) == 1
    assert (await client.get(f"/v1/predictions/{record['id']}")).json()["feedback"] is None
    assert (await other.get("/v1/predictions")).json()["data"] == []


async def test_erasing_removes_content_and_keeps_the_ledger(
    service: Service, client: httpx2.AsyncClient
) -> None:
    canary = unique("canary")
    record = await ask(client, input={"prompt": canary})
    path = f"/v1/predictions/{record['id']}"
    await client.put(f"{path}/feedback", json={"rating": "down", "comment": canary})
    assert (await client.delete(path)).status_code == 204
    row, attempt = await service.prediction(), await service.attempt()
    assert canary not in repr(row)
    assert (row.input, row.output, row.error, row.feedback) == (None, None, None, None)
    assert row.cost_nano_usd == attempt.cost_nano_usd == record["cost_nano_usd"]
    assert attempt.state == "settled"
    assert error_of(await client.get(path)) == (404, "not_found", None)
    assert error_of(await client.delete(path)) == (404, "not_found", None)
    assert (await client.get("/v1/predictions")).json()["data"] == []
    assert (await client.get("/v1/usage")).json()["day"]["spent_nano_usd"] == row.cost_nano_usd


async def test_feedback_is_kept_and_replaced(client: httpx2.AsyncClient) -> None:
    path = f"/v1/predictions/{(await ask(client))['id']}"
    for feedback in ({"rating": "up", "comment": None}, {"rating": "down", "comment": "Zu lang ☹"}):
        response = await client.put(f"{path}/feedback", json=feedback)
        assert (response.status_code, response.json()) == (200, feedback)
        assert (await client.get(path)).json()["feedback"] == feedback


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "rating"),
        ({"rating": "meh"}, "rating"),
        ({"rating": "up", "comment": "x" * 4001}, "comment"),
        ({"rating": "up", "stars": 5}, "stars"),
    ],
)
async def test_wrong_feedback(client: httpx2.AsyncClient, body: dict[str, str], param: str) -> None:
    path = f"/v1/predictions/{(await ask(client))['id']}/feedback"
    status, _, named = error_of(await client.put(path, json=body))
    assert (status, named) == (422, param)


def _time(text: str) -> dt.datetime:
    assert text.endswith("Z")
    return dt.datetime.fromisoformat(text)


async def test_no_feedback_comes_after_an_erasure(
    service: Service, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await ask(client)
    path = f"/v1/predictions/{made['id']}"
    read = Records.get

    async def read_and_erase(records: Records, user_id: str, prediction_id: str) -> Any:
        row = await read(records, user_id, prediction_id)
        monkeypatch.setattr(Records, "get", read)
        assert (await client.delete(path)).status_code == 204
        return row

    monkeypatch.setattr(Records, "get", read_and_erase)
    feedback = {"rating": "down", "comment": unique("canary")}
    assert (await client.put(f"{path}/feedback", json=feedback)).status_code == 200
    assert (await service.prediction()).feedback is None
