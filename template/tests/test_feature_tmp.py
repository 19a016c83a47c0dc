from fastapi import APIRouter, Response
from pydantic import BaseModel

from app.dependencies import GatewayDep
from tests.support import Service, error_of, said, sse

router = APIRouter()
class Text(BaseModel):
    text: str
class Summary(BaseModel):
    summary: str
    cost: int
@router.post("/v1/summaries")
async def summarise(body: Text, gateway: GatewayDep) -> Summary:
    reply = await gateway.chat("offline/echo", f"Summarise: {body.text}")
    return Summary(summary=reply.text, cost=reply.cost_nano_usd)
@router.post("/v1/summaries/stream")
async def stream(body: Text, gateway: GatewayDep) -> Response:
    s = await gateway.stream("offline/echo", f"Summarise: {body.text}")
    return s.response()
@router.post("/v1/vectors")
async def vectors(body: Text, gateway: GatewayDep) -> list[list[float]]:
    return (await gateway.embed("offline/embedding", body.text)).vectors

async def test_feature(service: Service) -> None:
    service.app.include_router(router)
    user = await service.create_user("few")
    client = service.client(user)
    h = {"Idempotency-Key": "one"}
    r = await client.post("/v1/summaries", json={"text": "hello"}, headers=h)
    print(r.text, r.headers)
    assert r.status_code == 200
    assert r.headers["x-ratelimit-limit-requests"] == "5"
    again = await client.post("/v1/summaries", json={"text": "hello"}, headers=h)
    assert again.json() == r.json() and again.headers["idempotent-replayed"] == "true", again.text
    other = await client.post("/v1/summaries", json={"text": "hallo"}, headers=h)
    assert error_of(other)[:2] == (422, "idempotency_mismatch")
    row = await service.prediction()
    assert row.feature == "summaries"
    r = await client.post("/v1/summaries/stream", json={"text": "hello"}, headers={"Idempotency-Key": "two"})
    assert "hello" in said(sse(r.text)), r.text
    r2 = await client.post("/v1/summaries/stream", json={"text": "hello"}, headers={"Idempotency-Key": "two"})
    assert r2.text == r.text
    assert r2.headers["idempotent-replayed"]
    r = await client.post("/v1/vectors", json={"text": "hello"})
    assert r.status_code == 200, r.text
    gateway = await service.engine.gateway_for(user.id, "job")
    async with await gateway.stream("offline/echo", "a b c") as s:
        pieces = [p async for p in s]
    print(pieces)
    rr = await gateway.predict("offline/echo", {"prompt": "hi"})
    assert rr.text == "You said: hi"
    r = await client.post("/v1/summaries", json={"text": "hello"})
    assert error_of(r)[:2] == (429, "rate_limit_exceeded")
    r = await service.client().post("/v1/summaries", json={"text": "hello"})
    assert r.status_code == 401
