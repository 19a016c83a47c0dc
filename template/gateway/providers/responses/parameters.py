"""The verdicts on each parameter of OpenAI's `ResponseCreateParams`."""

from dataclasses import replace
from typing import Any

from gateway.providers.parameters import (
    BOUNDED,
    CHAT,
    DROPPED,
    PASSED,
    Table,
    is_usual_cache,
    only,
    refused,
)

NOT_KEPT = "nothing is kept between requests; send the whole conversation as input"


def _is_usual_cache(options: Any) -> bool:
    """As for chats; `comparison_response_id` refers to a stored response, so it is refused."""
    return is_usual_cache(options) and not options.get("comparison_response_id")


RESPONSES: Table = {
    # The service reads these itself.
    "model": BOUNDED,
    "stream": PASSED,
    "stream_options": DROPPED,
    # The input of the model.
    "input": BOUNDED,
    "instructions": BOUNDED,
    "text": BOUNDED,
    "tool_choice": BOUNDED,
    "tools": BOUNDED,
    # The length and the sampling of the output.
    "include": PASSED,
    "max_output_tokens": BOUNDED,
    "parallel_tool_calls": PASSED,
    "reasoning": PASSED,
    "temperature": PASSED,
    "top_logprobs": PASSED,
    "top_p": PASSED,
    "truncation": PASSED,
    # The prompt cache. The upper bound of the cost includes its writes.
    "prompt_cache_key": PASSED,
    "prompt_cache_options": replace(CHAT["prompt_cache_options"], accepts=_is_usual_cache),
    "prompt_cache_retention": CHAT["prompt_cache_retention"],
    # The service's own records hold the user, and the provider stores no answer.
    "max_tool_calls": DROPPED,
    "metadata": DROPPED,
    "safety_identifier": DROPPED,
    "store": DROPPED,
    "user": DROPPED,
    # Another price, or data that the provider stores.
    "access_programs": refused("they are the operator's with the provider"),
    "background": only(False, reason="nothing runs on after the answer; stream it"),
    "background_options": refused("nothing runs on after the answer"),
    "context_management": refused("shortening has a price of its own; send a shorter conversation"),
    "conversation": refused(NOT_KEPT),
    "image": refused("how images are prepared changes what they cost"),
    "moderation": CHAT["moderation"],
    "previous_response_id": refused(NOT_KEPT),
    "prompt": refused("its text is kept elsewhere; send the text as input"),
    "service_tier": CHAT["service_tier"],
}
