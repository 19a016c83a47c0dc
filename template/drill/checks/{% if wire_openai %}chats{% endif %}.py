"""What only chats have: tokens to be limited, and streams to be left."""

import asyncio
import json
import secrets

from drill.environment import Environment, eventually, tally
from drill.guarantees import guarantee
from drill.wiring import work
from gateway.counts import counted


@guarantee(
    "A limit of tokens is exact over all processes, and its Retry-After is true",
    "12 times ok, 188 times 429 rate_limit_exceeded tokens; then ok",
)
async def tokens(environment: Environment) -> str:
    user = await environment.create_user("tokens")
    await environment.simulator.queue(**work.FULL)
    answers = await environment.burst(user, 200)
    waits = [answer.retry_after for answer in answers if answer.status == 429]
    await asyncio.sleep(max(waits, default=0))
    late = await environment.ask(user)
    return f"{tally(answers)}; then {late.code}"


@guarantee(
    "A client that hangs up in the middle of a stream costs the bound, and the provider is left",
    "uncertain at its bound; the call at the provider was abandoned",
)
async def disconnect(environment: Environment) -> str:
    user = await environment.create_user("roomy", "hangs-up")
    await environment.simulator.queue("stall", after=2)
    url = environment.services[0].url + work.PATH
    body = work.body(stream=True)
    async with environment.http.post(url, headers=user.headers, json=body) as response:
        await response.content.readline()

    async def is_closed() -> bool:
        (attempt,) = await environment.attempts(user)
        return attempt.closed_at is not None

    await eventually(is_closed, seconds=10)
    (attempt,), (call,) = await environment.attempts(user), await environment.simulator.calls()
    cost = "its bound" if attempt.cost_nano_usd == work.BOUND else f"{attempt.cost_nano_usd}"
    return f"{attempt.state} at {cost}; the call at the provider was {call.outcome}"


@guarantee(
    "Streams of one user that last too long close no model for another",
    "8 streams ended after their first chunk; during and after them 30 times ok",
)
async def long_streams(environment: Environment) -> str:
    slow = await environment.create_user("roomy")
    await environment.simulator.queue("stall")
    streams = [asyncio.create_task(environment.ask(slow, stream=True)) for _ in range(8)]
    during = await environment.burst(environment.user, 15)
    ended = [answer for answer in await asyncio.gather(*streams) if b"delta" in answer.body]
    after = await environment.burst(environment.user, 15)
    seen = tally(during + after)
    return f"{len(ended)} streams ended after their first chunk; during and after them {seen}"


@guarantee(
    "A client that sends back the messages that it was given, as they came, is answered",
    "3 turns: ok, ok, ok; each message came with annotations, reasoning_content",
)
async def conversation(environment: Environment) -> str:
    user = await environment.create_user("roomy")
    await environment.simulator.queue("extra_fields")
    messages, codes = [{"role": "user", "content": work.PROMPT}], []
    for _ in range(3):
        answer = await environment.ask(user, messages=messages)
        codes.append(answer.code)
        if answer.code == "ok":
            messages += [_message(answer.body), {"role": "user", "content": work.PROMPT}]
    given = [message for message in messages if message["role"] == "assistant"]
    wanted = ("annotations", "reasoning_content")
    fields = [name for name in wanted if all(name in message for message in given)]
    turns = f"{counted(len(codes), 'turn')}: {', '.join(codes)}"
    return f"{turns}; each message came with {', '.join(fields)}"


def _message(body: bytes) -> dict[str, str]:
    message: dict[str, str] = json.loads(body)["choices"][0]["message"]
    return message


@guarantee(
    "A request for a response is reserved, paid and replayed as the same chat is",
    "settled at what the provider billed, of a chat's bound; replayed word for word",
)
async def responses(environment: Environment) -> str:
    user = await environment.create_user("roomy", "responds")
    headers = {**user.headers, "Idempotency-Key": secrets.token_hex(8)}
    body = {"model": "drill/chat", "input": work.PROMPT, "stream": True}
    url, texts = environment.services[0].url + "/v1/responses", []
    for _ in range(2):
        async with environment.http.post(url, headers=headers, json=body) as response:
            texts.append(await response.text())
    (attempt,), (call,) = await environment.attempts(user), await environment.simulator.calls()
    is_right = attempt.cost_nano_usd == work.billed(call) > 0
    cost = "what the provider billed" if is_right else f"{attempt.cost_nano_usd}"
    bound = "a chat's bound" if attempt.bound_nano_usd == work.BOUND else attempt.bound_nano_usd
    again = "replayed word for word" if texts[0] == texts[1] else "not replayed"
    ended = "response.completed" in texts[0]
    return f"{attempt.state} at {cost}, of {bound}; {again if ended else 'not ended'}"
