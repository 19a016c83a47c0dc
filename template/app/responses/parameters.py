"""What becomes of each parameter of OpenAI's `ResponseCreateParams`."""

from collections.abc import Mapping

# What a provider is told, and what the bound contains.
TAKEN = frozenset(
    {
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "parallel_tool_calls",
        "prompt_cache_key",
        "reasoning",
        "safety_identifier",
        "temperature",
        "text",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "truncation",
        "user",
    }
)
# What there is nothing to do about: the answer is the same without it.
DROPPED = frozenset({"max_tool_calls", "metadata", "store", "stream_options"})
NOT_KEPT = "Nothing is kept between requests: send the whole conversation as input"
# What would cost what no price declares, or keep something elsewhere; and what to do instead.
REFUSED: Mapping[str, str] = {
    "access_programs": "Access programs are the operator's with the provider; leave it out.",
    "background": "No answer runs on in the background; leave it out, and stream the answer.",
    "background_options": "No answer runs on in the background; leave it out.",
    "context_management": "The provider would be paid to shorten the conversation; shorten it.",
    "conversation": f"{NOT_KEPT}, not a conversation's id.",
    "image": "How images are prepared changes what they cost; leave it out.",
    "moderation": "What a check by another model costs is not declared; leave it out.",
    "previous_response_id": f"{NOT_KEPT}, not the id of a response.",
    "prompt": "The size of a prompt that is stored elsewhere is unknown; send its text as input.",
    "prompt_cache_options": "How long a prompt is cached changes what it costs; leave it out.",
    "prompt_cache_retention": "A prompt is not kept at the provider for longer; leave it out.",
    "service_tier": "Only 'auto' and 'default' are offered: others have another price.",
}
