"""Checks the tools, the format and the `include` of a response's request."""

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.errors import InvalidRequest, UnsupportedParameter

MAX_NAME = 100
# OpenAI's values of `include`. Those for tools of the provider are accepted and have no effect.
INCLUDABLE = frozenset(
    {
        "code_interpreter_call.outputs",
        "computer_call_output.output.image_url",
        "file_search_call.results",
        "message.input_image.image_url",
        "message.output_text.logprobs",
        "reasoning.encrypted_content",
        "web_search_call.action.sources",
        "web_search_call.results",
    }
)
MODES = ("none", "auto", "required")
FORMATS = ("text", "json_object", "json_schema")
FUNCTIONS_ALONE = (
    "only functions, which you run yourself, are offered: what a tool of the provider costs is not "
    "declared"
)


def check_tools(tools: Sequence[Mapping[str, Any]], choice: Any) -> None:
    """Raise `UnsupportedParameter` or `InvalidRequest` for the first tool not a function."""
    for place, tool in enumerate(tools):
        _check_function(tool, f"tools.{place}")
    if isinstance(choice, str) and choice not in MODES:
        reason = f"must be one of {', '.join(MODES)} or an object"
        raise InvalidRequest(f"tool_choice: {reason}.", param="tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        _check_allowed(choice)
    elif isinstance(choice, dict):
        _check_function(choice, "tool_choice")


def _check_allowed(choice: Mapping[str, Any]) -> None:
    tools = choice.get("tools")
    if not isinstance(tools, list) or choice.get("mode") not in MODES:
        raise InvalidRequest("tool_choice: must have a mode and tools.", param="tool_choice")
    for place, tool in enumerate(tools):
        _check_function(tool, f"tool_choice.tools.{place}")


def _check_function(tool: Any, path: str) -> None:
    if not isinstance(tool, dict):
        raise InvalidRequest(f"{path}: must be an object.", param=path)
    if tool.get("type") != "function":
        place = f"{path}.type" if "type" in tool else path
        kind = repr(tool.get("type"))[:MAX_NAME]
        raise UnsupportedParameter(f"{path}.type: {kind}; {FUNCTIONS_ALONE}.", param=place)
    if not isinstance(tool.get("name"), str):
        place = f"{path}.name" if "name" in tool else path
        raise InvalidRequest(f"{path}.name: must be a text.", param=place)


def check_include(include: Sequence[str]) -> None:
    """Raise `UnsupportedParameter` for the first value that OpenAI does not have."""
    for place, name in enumerate(include):
        if name not in INCLUDABLE:
            message = f"include.{place}: OpenAI has no such value."
            raise UnsupportedParameter(message, param=f"include.{place}")


def check_format(form: Mapping[str, Any]) -> None:
    """Raise `InvalidRequest` for an invalid format of text."""
    path, kind = "text.format", form.get("type")
    if kind not in FORMATS:
        place = f"{path}.type" if "type" in form else path
        raise InvalidRequest(f"{path}.type: must be one of {', '.join(FORMATS)}.", param=place)
    if kind != "json_schema":
        return
    for name, wanted in (("name", str), ("schema", dict)):
        if not isinstance(form.get(name), wanted):
            place = f"{path}.{name}" if name in form else path
            words = "a text" if wanted is str else "an object"
            raise InvalidRequest(f"{path}.{name}: must be {words}.", param=place)
