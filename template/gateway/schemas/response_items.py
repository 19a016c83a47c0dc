"""Checks the input items of a response: their form must have a bounded cost.

Accepts everything that an answer can contain, with all its fields: an assistant's message may have
any form, and the adapters send the parts that they can read.
"""

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from gateway.errors import InvalidRequest, UnsupportedParameter

MAX_ITEMS = 2048
MAX_NAME = 100
ROLES = ("assistant", "developer", "system", "user")
# The field that holds the text of a part, by the part's type.
TEXT_PARTS = {"input_text": "text", "output_text": "text", "refusal": "refusal"}


def check_input(given: Any) -> None:
    """Raise `InvalidRequest` or `UnsupportedParameter` for the first error."""
    if isinstance(given, str):
        return
    if not isinstance(given, list) or not 1 <= len(given) <= MAX_ITEMS:
        refuse("input", f"must be a text or a list of 1 to {MAX_ITEMS} items")
    for place, item in enumerate(given):
        _check_item(item, f"input.{place}")


def _check_item(item: Any, path: str) -> None:
    if not isinstance(item, dict):
        refuse(path, "must be an object")
    kind = item.get("type") or ("message" if "role" in item else "item_reference")
    if kind == "item_reference":
        not_offered(path, "no items are stored here; send the item itself, not its id")
    check = CHECKS.get(kind) if isinstance(kind, str) else None
    if check is None:
        not_offered(f"{path}.type", f"items of type {_short(kind)} are not offered")
    check(item, path)


def _check_message(item: Mapping[str, Any], path: str) -> None:
    if item.get("role") not in ROLES:
        refuse_field(item, "role", path, f"must be one of {', '.join(ROLES)}")
    if item["role"] != "assistant":
        _check_content(item, "content", path)


def _check_content(item: Mapping[str, Any], name: str, path: str) -> None:
    content = item.get(name)
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        refuse_field(item, name, path, "must be a text or a list of parts")
    for number, part in enumerate(content):
        _check_part(part, f"{path}.{name}.{number}")


def _check_part(part: Any, path: str) -> None:
    kind = _type_of(part, path)
    if kind in TEXT_PARTS:
        require_text(part, TEXT_PARTS[kind], path)
    elif kind == "input_image":
        _check_image(part, path)
    else:
        not_offered(f"{path}.type", f"content of type {_short(kind)} is not offered")


def _check_image(part: Mapping[str, Any], path: str) -> None:
    if part.get("file_id") is not None:
        not_offered(f"{path}.file_id", "no files are stored here; send image_url")
    require_text(part, "image_url", path)
    if part.get("detail") is not None:
        require_text(part, "detail", path)


def _check_call(item: Mapping[str, Any], path: str) -> None:
    for name in ("call_id", "name", "arguments"):
        require_text(item, name, path)


def _check_output(item: Mapping[str, Any], path: str) -> None:
    require_text(item, "call_id", path)
    _check_content(item, "output", path)


def _check_reasoning(_: Mapping[str, Any], __: str) -> None:
    """What a model thought is taken as it came."""


CHECKS: Mapping[str, Callable[[Mapping[str, Any], str], None]] = {
    "message": _check_message,
    "function_call": _check_call,
    "function_call_output": _check_output,
    "reasoning": _check_reasoning,
}


def _type_of(part: Any, path: str) -> str:
    if not isinstance(part, dict):
        refuse(path, "must be an object")
    require_text(part, "type", path)
    return str(part["type"])


def require_text(owner: Mapping[str, Any], name: str, path: str) -> None:
    """Raise `InvalidRequest` unless the field is a text."""
    if not isinstance(owner.get(name), str):
        refuse_field(owner, name, path, "must be a text")


def refuse_field(owner: Mapping[str, Any], name: str, path: str, reason: str) -> NoReturn:
    """Raise `InvalidRequest`. A missing field has no path, so `param` is that of its owner."""
    place = f"{path}.{name}"
    raise InvalidRequest(f"{place}: {reason}.", param=place if name in owner else path)


def refuse(path: str, reason: str) -> NoReturn:
    """Raise `InvalidRequest`."""
    raise InvalidRequest(f"{path}: {reason}.", param=path)


def not_offered(path: str, reason: str) -> NoReturn:
    """Raise `UnsupportedParameter`."""
    raise UnsupportedParameter(f"{path}: {reason}.", param=path)


def _short(kind: Any) -> str:
    return repr(kind)[:MAX_NAME]
