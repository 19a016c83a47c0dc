"""Hugging Face's API: its chat router and the task models of `hf-inference`."""

from base64 import b64decode
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tests.simulator.chat_format import CHAT_FAULTS, complete
from tests.simulator.exchange import Exchange, Reply, Route, encode
from tests.simulator.faults import Refusal
from tests.simulator.vectors import embed

_CHAT = """
messages model frequency_penalty logit_bias logprobs max_tokens n presence_penalty
response_format seed stop stream stream_options temperature tool_choice tool_prompt tools
top_logprobs top_p
"""
CHAT_PARAMETERS = frozenset(_CHAT.split())

# A picture of one pixel.
PNG = b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
)
_SECONDS = 0.025
_COMPUTE = {"x-compute-type": "cpu", "x-compute-time": str(_SECONDS)}
_LABELS = [{"label": "POSITIVE", "score": 0.75}, {"label": "NEGATIVE", "score": 0.25}]


class HuggingFace:
    """The wire format behind `HF_BASE_URL`."""

    name = "huggingface"
    base = "/huggingface"
    variable = "HF_BASE_URL"
    needs_key = True

    def routes(self) -> Sequence[Route]:
        """List the routes; a model's name has slashes, so the longer path stands first."""
        models = "/hf-inference/models/{model:.+}"
        return (
            Route("POST", "/v1/chat/completions", _chat, CHAT_FAULTS),
            Route("POST", models + "/pipeline/feature-extraction", _features),
            Route("POST", models, _task),
        )

    def headers(self, number: int) -> dict[str, str]:
        """Tell the id of the request."""
        return {"x-request-id": f"req-{number:08d}"}

    def refuse(self, refusal: Refusal) -> Reply:
        """Answer `{"error": text}`, with `estimated_time` for a model that is still loading."""
        error: dict[str, Any] = {"error": refusal.message}
        if refusal.status == 503 and refusal.seconds is not None:
            error = {
                "error": "Model simulator/model is currently loading",
                "estimated_time": refusal.seconds,
            }
        return Reply(encode(error), status=refusal.status, headers=refusal.headers)

    def reset(self) -> None:
        """Nothing is remembered between requests."""


def _chat(exchange: Exchange) -> Reply:
    return complete(exchange, CHAT_PARAMETERS)


def _features(exchange: Exchange) -> Reply:
    """Embed one text as a vector, a list as a list of vectors, without usage."""
    exchange.require("inputs")
    inputs = exchange.body["inputs"]
    vectors = embed(inputs) if isinstance(inputs, str) else [embed(text) for text in inputs]
    return Reply(encode(vectors), headers=_COMPUTE, billed={"seconds": _SECONDS})


def _task(exchange: Exchange) -> Reply:
    """Run any other task: a picture from a model whose name says so, else a classification."""
    if "image" in exchange.params["model"]:
        reply = Reply(PNG, content_type="image/png")
    else:
        reply = Reply(encode([_LABELS]))
    return replace(reply, headers=_COMPUTE, billed={"seconds": _SECONDS})
