"""OpenAI's own client: chats, embeddings and responses."""

import json
from typing import Any

import openai
from pydantic import BaseModel
from report import (
    EMBEDDING_MODEL,
    FIRST,
    FUNCTION,
    KEY,
    LIMITED_KEY,
    MESSAGES,
    MODEL,
    OVERFLOW,
    SECOND,
    TEXT,
    TOO_LONG,
    TOOL,
    URL,
    case,
    get_weather,
    raised,
    run,
)


class Weather(BaseModel):
    """What a structured answer holds."""

    city: str
    days: int


client = openai.OpenAI(base_url=URL, api_key=KEY, max_retries=0)
stranger = client.with_options(api_key="wrong")
limited = client.with_options(api_key=LIMITED_KEY)
create = client.chat.completions.create


@case
def models() -> bool:
    return {MODEL, EMBEDDING_MODEL} <= {model.id for model in client.models.list()}


@case
def chat() -> Any:
    return create(model=MODEL, messages=MESSAGES).choices[0].message.content


@case
def stream() -> str:
    chunks = create(model=MODEL, messages=MESSAGES, stream=True)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


@case
def stream_with_usage() -> Any:
    options: Any = {"include_usage": True}
    *_, last = create(model=MODEL, messages=MESSAGES, stream=True, stream_options=options)
    return [last.choices, last.usage and last.usage.completion_tokens]


@case
def tools() -> list[Any]:
    """Two turns; each of the service's messages is sent back as it came."""
    messages: list[Any] = []
    for text in (FIRST, SECOND):
        messages.append({"role": "user", "content": text})
        message = create(model=MODEL, messages=messages, tools=[TOOL]).choices[0].message
        messages.append(message)
        for call in message.tool_calls or ():
            assert call.type == "function"
            told = get_weather(**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": told})
        messages.append(create(model=MODEL, messages=messages, tools=[TOOL]).choices[0].message)
    return [messages[3].content, messages[7].content]


@case
def tools_in_a_stream() -> list[Any]:
    """The message that the client puts together of a stream is sent back as it is."""
    messages: list[Any] = [{"role": "user", "content": FIRST}]
    for _ in range(2):
        with client.chat.completions.stream(model=MODEL, messages=messages, tools=[TOOL]) as events:
            message = events.get_final_completion().choices[0].message
        messages.append(message.to_dict())
        for call in message.tool_calls or ():
            told = get_weather(**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": told})
    return [messages[-1]["content"]]


@case
def structured() -> Any:
    parse = client.chat.completions.parse
    answer = parse(model=MODEL, messages=MESSAGES, response_format=Weather).choices[0].message
    return answer.parsed and answer.parsed.model_dump()


@case
def structured_sent_back() -> Any:
    """The parsed message has fields that only this client knows."""
    parse = client.chat.completions.parse
    message = parse(model=MODEL, messages=MESSAGES, response_format=Weather).choices[0].message
    messages: Any = [*MESSAGES, message, *MESSAGES]
    return create(model=MODEL, messages=messages).choices[0].message.content


@case
def parameters() -> Any:
    """What OpenAI takes and what changes neither the answer nor its price."""
    given: dict[str, Any] = {
        "metadata": {"task": "test"},
        "prompt_cache_key": "key",
        "safety_identifier": "user",
        "service_tier": "default",
        "store": False,
        "stream_options": {"include_obfuscation": False},
        "user": "user",
    }
    chunks = create(model=MODEL, messages=MESSAGES, stream=True, **given)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


@case
def max_tokens() -> list[Any]:
    choice = create(model=MODEL, messages=MESSAGES, max_tokens=3).choices[0]
    return [choice.message.content, choice.finish_reason]


@case
def max_completion_tokens() -> list[Any]:
    choice = create(model=MODEL, messages=MESSAGES, max_completion_tokens=3).choices[0]
    return [choice.message.content, choice.finish_reason]


@case
def embeddings() -> list[Any]:
    """In base64, unless the client is told otherwise."""
    embed = client.embeddings.create
    packed = embed(model=EMBEDDING_MODEL, input=[TEXT, "four"])
    plain = embed(model=EMBEDDING_MODEL, input=[TEXT, "four"], encoding_format="float")
    same = [item.embedding for item in packed.data] == [item.embedding for item in plain.data]
    return [len(packed.data), same]


@case
def unauthorized() -> str:
    return raised(lambda: stranger.chat.completions.create(model=MODEL, messages=MESSAGES))


@case
def rate_limited() -> str:
    return raised(lambda: limited.chat.completions.create(model=MODEL, messages=MESSAGES))


@case
def overflow() -> str:
    return raised(lambda: create(model=MODEL, messages=OVERFLOW))


@case
def overflow_of_a_stream() -> str:
    return raised(lambda: create(model=MODEL, messages=OVERFLOW, stream=True))


@case
def responses_chat() -> str:
    return client.responses.create(model=MODEL, input=TEXT).output_text


@case
def responses_stream() -> list[Any]:
    events = list(client.responses.create(model=MODEL, input=TEXT, stream=True))
    pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
    return ["".join(pieces), events[-1].type]


@case
def responses_tools() -> list[str]:
    """Two turns; each of the service's items is sent back as it came."""
    items: list[Any] = []
    texts = []
    for text in (FIRST, SECOND):
        items.append({"role": "user", "content": text})
        answer = client.responses.create(model=MODEL, input=items, tools=[FUNCTION])
        items += answer.output
        for item in answer.output:
            if item.type == "function_call":
                told = get_weather(**json.loads(item.arguments))
                result = {"type": "function_call_output", "call_id": item.call_id, "output": told}
                items.append(result)
        answer = client.responses.create(model=MODEL, input=items, tools=[FUNCTION])
        items += answer.output
        texts.append(answer.output_text)
    return texts


@case
def responses_tools_in_a_stream() -> list[str]:
    """The items that the client puts together of a stream are sent back as they are."""
    items: list[Any] = [{"role": "user", "content": FIRST}]
    for _ in range(2):
        asked: dict[str, Any] = {"model": MODEL, "input": items, "tools": [FUNCTION]}
        with client.responses.stream(**asked) as events:
            answer = events.get_final_response()
        items += answer.output
        for item in answer.output:
            if item.type == "function_call":
                told = get_weather(**json.loads(item.arguments))
                result = {"type": "function_call_output", "call_id": item.call_id, "output": told}
                items.append(result)
    return [answer.output_text]


@case
def responses_structured_sent_back() -> str:
    """The parsed items have fields that only this client knows."""
    first = client.responses.parse(model=MODEL, input=TEXT, text_format=Weather)
    items: Any = [*MESSAGES, *first.output, *MESSAGES]
    return client.responses.create(model=MODEL, input=items).output_text


@case
def responses_parameters() -> Any:
    """What OpenAI takes and what changes neither the answer nor its price."""
    given: dict[str, Any] = {
        "include": ["reasoning.encrypted_content"],
        "metadata": {"task": "test"},
        "prompt_cache_key": "key",
        "safety_identifier": "user",
        "service_tier": "default",
        "store": False,
        "truncation": "disabled",
        "user": "user",
    }
    return client.responses.create(model=MODEL, input=TEXT, **given).output_text


@case
def responses_structured() -> Any:
    answer = client.responses.parse(model=MODEL, input=TEXT, text_format=Weather).output_parsed
    return answer and answer.model_dump()


@case
def responses_max_tokens() -> list[Any]:
    answer = client.responses.create(model=MODEL, input=TEXT, max_output_tokens=16)
    return [answer.output_text, answer.status]


@case
def responses_unauthorized() -> str:
    return raised(lambda: stranger.responses.create(model=MODEL, input=TEXT))


@case
def responses_rate_limited() -> str:
    return raised(lambda: limited.responses.create(model=MODEL, input=TEXT))


@case
def responses_overflow() -> str:
    return raised(lambda: client.responses.create(model=MODEL, input=TOO_LONG))


if __name__ == "__main__":
    run()
