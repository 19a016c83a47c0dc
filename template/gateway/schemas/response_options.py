"""Checks the tools, the format and the `include` of a response's request."""

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.errors import UnsupportedParameter
from gateway.schemas.response_items import (
    MAX_NAME,
    not_offered,
    refuse,
    refuse_field,
    require_text,
)

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
        refuse("tool_choice", f"must be one of {', '.join(MODES)} or an object")
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        _check_allowed(choice)
    elif isinstance(choice, dict):
        _check_function(choice, "tool_choice")


def _check_allowed(choice: Mapping[str, Any]) -> None:
    tools = choice.get("tools")
    if not isinstance(tools, list) or choice.get("mode") not in MODES:
        refuse("tool_choice", "must have a mode and tools")
    for place, tool in enumerate(tools):
        _check_function(tool, f"tool_choice.tools.{place}")


def _check_function(tool: Any, path: str) -> None:
    if not isinstance(tool, dict):
        refuse(path, "must be an object")
    if tool.get("type") != "function":
        place = f"{path}.type" if "type" in tool else path
        kind = repr(tool.get("type"))[:MAX_NAME]
        raise UnsupportedParameter(f"{path}.type: {kind}; {FUNCTIONS_ALONE}.", param=place)
    require_text(tool, "name", path)


def check_include(include: Sequence[str]) -> None:
    """Raise `UnsupportedParameter` for the first value that OpenAI does not have."""
    for place, name in enumerate(include):
        if name not in INCLUDABLE:
            not_offered(f"include.{place}", "OpenAI has no such value")


def check_format(form: Mapping[str, Any]) -> None:
    """Raise `InvalidRequest` for an invalid format of text."""
    path, kind = "text.format", form.get("type")
    if kind not in FORMATS:
        refuse_field(form, "type", path, f"must be one of {', '.join(FORMATS)}")
    if kind == "json_schema":
        require_text(form, "name", path)
        if not isinstance(form.get("schema"), dict):
            refuse_field(form, "schema", path, "must be an object")
