"""Translates a request of `/v1/responses` into a chat.

For the offline provider and for servers that offer chat completions only.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.errors import InvalidRequest, UnsupportedParameter
from gateway.providers.base import Body
from gateway.providers.completion import text_of
from gateway.providers.parameters import Table, takes

ROLES = {"developer": "system"}
TEXTS = {"input_text": "text", "output_text": "text", "refusal": "refusal"}
# Sent under the same name where the server accepts them; the answer does not depend on them.
OPTIONAL = ("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention")
# The fields for earlier reasoning; an adapter sends the one that its server needs.
REASONING = ("reasoning", "reasoning_content")
LIMITS = ("max_completion_tokens", "max_tokens")
LOGPROBS = "message.output_text.logprobs"


def chat_body(request: Mapping[str, Any], taken: Table) -> Body:
    """The body of a chat for a server with the table of parameters `taken`.

    Raises `UnsupportedParameter` for a parameter that the server refuses, and `InvalidRequest`.
    """
    body = {"messages": list(_messages(request))}
    for name, value, given in _parameters(request, taken):
        if not takes(taken, name, value):
            message = f"The parameter {given!r} is not supported for this model."
            raise UnsupportedParameter(message, param=given)
        body[name] = value
    return body


def _parameters(request: Mapping[str, Any], taken: Table) -> Iterator[tuple[str, Any, str]]:
    """Each parameter's name in a chat, its value, and its path in the client's request."""
    text, reasoning = request.get("text") or {}, request.get("reasoning") or {}
    limit = next((name for name in LIMITS if name in taken), LIMITS[0])
    tools, choice = _offered(request)
    in_parallel = request.get("parallel_tool_calls") if tools else None
    most_likely = request.get("top_logprobs") or None
    wants_logprobs = most_likely or LOGPROBS in (request.get("include") or ())
    found = (
        (limit, request.get("max_output_tokens"), "max_output_tokens"),
        ("temperature", request.get("temperature"), "temperature"),
        ("top_p", request.get("top_p"), "top_p"),
        ("tools", tools, "tools"),
        ("tool_choice", choice, "tool_choice"),
        ("parallel_tool_calls", in_parallel, "parallel_tool_calls"),
        ("response_format", _response_format(text.get("format")), "text.format"),
        ("verbosity", text.get("verbosity"), "text.verbosity"),
        ("reasoning_effort", reasoning.get("effort"), "reasoning.effort"),
        ("logprobs", True if wants_logprobs else None, "include"),
        ("top_logprobs", most_likely, "top_logprobs"),
        *((name, request.get(name), name) for name in OPTIONAL if name in taken),
    )
    return (each for each in found if each[1] is not None)


def _offered(request: Mapping[str, Any]) -> tuple[list[Body] | None, Any]:
    """The tools that the model may call, and the choice of a tool."""
    tools, choice = request.get("tools") or [], request.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        names = {tool.get("name") for tool in choice.get("tools") or ()}
        tools = [tool for tool in tools if tool.get("name") in names]
        choice = choice.get("mode")
    elif isinstance(choice, dict):
        choice = {"type": "function", "function": {"name": choice.get("name")}}
    return [_function(tool) for tool in tools] or None, choice if tools else None


def _function(tool: Mapping[str, Any]) -> Body:
    names = ("name", "description", "parameters", "strict")
    given = {name: tool[name] for name in names if tool.get(name) is not None}
    return {"type": "function", "function": given}


def _response_format(form: Mapping[str, Any] | None) -> Body | None:
    if form is None or form.get("type") == "text":
        return None
    if form.get("type") == "json_object":
        return {"type": "json_object"}
    names = ("name", "description", "schema", "strict")
    schema = {name: form[name] for name in names if form.get(name) is not None}
    return {"type": "json_schema", "json_schema": schema}


def _messages(request: Mapping[str, Any]) -> Iterator[Body]:
    if request.get("instructions"):
        yield {"role": "system", "content": request["instructions"]}
    given = request.get("input")
    if isinstance(given, str):
        yield {"role": "user", "content": given}
    else:
        yield from _turns(given or [])


def _turns(items: Sequence[Body]) -> Iterator[Body]:
    """The messages of items. An assistant's reasoning, text and calls in a row are one message."""
    turn = Body()
    # The reasoning of this turn, and the reasoning before its next item.
    thoughts: list[str] = []
    pending: list[str] = []
    for place, item in enumerate(items):
        kind = item.get("type") or "message"
        if kind == "reasoning":
            pending.append(text_of(item.get("content") or item.get("summary")))
            continue
        if kind == "function_call":
            turn = turn or {"role": "assistant", "content": None}
            turn.setdefault("tool_calls", []).append(_call(item))
        else:
            if turn:
                yield _with_thoughts(turn, thoughts)
            turn, thoughts = _message(item) if kind == "message" else _result(item, place), []
            if turn["role"] != "assistant":
                yield turn
                turn, pending = {}, []
        thoughts += pending
        pending = []
    if turn:
        yield _with_thoughts(turn, thoughts)


def _with_thoughts(turn: Body, thoughts: Sequence[str]) -> Body:
    thought = "".join(thoughts)
    return {**turn, **dict.fromkeys(REASONING, thought)} if thought else turn


def _call(item: Mapping[str, Any]) -> Body:
    function = {"name": item["name"], "arguments": item["arguments"]}
    return {"id": item["call_id"], "type": "function", "function": function}


def _result(item: Mapping[str, Any], place: int) -> Body:
    """The message with a function's result. A chat accepts only text there."""
    output = item["output"]
    for number, part in enumerate(output if isinstance(output, list) else ()):
        if part["type"] not in TEXTS:
            raise InvalidRequest(
                f"This model accepts only text as the output of a function, not {part['type']!r}.",
                param=f"input.{place}.output.{number}.type",
            )
    return {"role": "tool", "tool_call_id": item["call_id"], "content": _joined(output, "\n")}


def _message(item: Mapping[str, Any]) -> Body:
    role = ROLES.get(item["role"], item["role"])
    if role == "assistant":
        return {"role": role, "content": _said(item.get("content"))}
    content = item["content"]
    if not isinstance(content, str):
        has_images = any(part["type"] not in TEXTS for part in content)
        if has_images or (role == "user" and len(content) > 1):
            return {"role": role, "content": [_part(part) for part in content]}
    # Some servers accept parts only from a user; other roles get one text.
    return {"role": role, "content": _joined(content, "\n")}


def _said(content: Any) -> str:
    """The text of an assistant's message, in any form."""
    parts = content if isinstance(content, list) else [content]
    return text_of(
        [
            {"text": part["refusal"]} if isinstance(part, dict) and "refusal" in part else part
            for part in parts
        ]
    )


def _joined(content: str | Sequence[Body], separator: str) -> str:
    if isinstance(content, str):
        return content
    return separator.join(part[TEXTS[part["type"]]] for part in content)


def _part(part: Mapping[str, Any]) -> Body:
    if part["type"] != "input_image":
        return {"type": "text", "text": part[TEXTS[part["type"]]]}
    image = {"url": part["image_url"]}
    if part.get("detail"):
        image["detail"] = part["detail"]
    return {"type": "image_url", "image_url": image}
