"""What a simulated model does with tools and JSON schemas: it fills them in, so that a test knows
what comes.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.simulator.exchange import encode

Schema = Mapping[str, Any]

# A tokenizer makes fewer pieces of JSON; these are enough to cut a call in the middle.
_PIECE = 8
_EXAMPLES: dict[str, Any] = {"integer": 1, "number": 0.5, "boolean": True, "null": None}


def called(functions: Sequence[Schema], choice: Any, prompt: str) -> Iterator[Schema]:
    """Choose the functions that a model calls: those whose names stand in the prompt.

    `choice` is the request's `tool_choice`: the name of a function, which is called then, or
    "required", for which the first one stands in.
    """
    if choice == "none":
        return
    words = set(re.findall(r"[\w-]+", prompt))
    named = {choice} if choice not in (None, "auto", "required") else words
    chosen = [function for function in functions if function["name"] in named]
    yield from chosen or (functions[:1] if choice == "required" else [])


def filled(schema: Schema, prompt: str) -> str:
    """Write JSON that fits a schema; each text in it is the last word of the prompt."""
    word = (re.findall(r"[\w-]+", prompt) or [""])[-1]
    return encode(_example(schema, schema, word)).decode()


def pieces(text: str) -> tuple[str, ...]:
    """Cut JSON as a stream does, without regard to its values."""
    return tuple(text[start : start + _PIECE] for start in range(0, len(text), _PIECE))


def _example(schema: Schema, root: Schema, word: str) -> Any:
    schema = _resolved(schema, root)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind if isinstance(kind, str) else kind[0]
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: _example(value, root, word) for name, value in properties.items()}
    if kind == "array":
        return [_example(schema.get("items", {}), root, word)]
    return _EXAMPLES.get(kind, word)


def _resolved(schema: Schema, root: Schema) -> Schema:
    """Follow references within the schema, and take the first of several forms."""
    while True:
        if reference := schema.get("$ref"):
            schema = root
            for name in reference.removeprefix("#").strip("/").split("/"):
                schema = schema[name] if name else schema
        elif forms := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
            schema = forms[0]
        else:
            return schema
