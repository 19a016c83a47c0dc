"""How servers that speak OpenAI's API differ from it, as data: one `Dialect` for each.

Read from their documentation and from the answers that people reported: which spelling of the
largest output a server heeds, refuses or ignores; what a chunk holds beside OpenAI's fields; where
the usage is, and its fields; and the shape of errors.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.simulator.faults import Refusal

Object = dict[str, Any]
OLD, NEW = "max_tokens", "max_completion_tokens"
# A model that no server knows.
UNKNOWN_MODEL = "no-such-model"
KINDS = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error"}


def _nothing(_: Object) -> Object:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What one server does in its own way."""

    name: str
    limits: Mapping[str, Literal["heeds", "refuses", "ignores"]]
    """What becomes of each spelling of the largest output."""
    error: Callable[[Refusal], Any]
    """The body of an error."""
    unknown_model: Refusal | None
    """None takes any name, as a server of one model does."""
    unknown_limit: Callable[[str], Refusal] | None = None
    needs_key: bool = True
    before: bytes = b""
    """What comes before the first chunk, or before a whole answer: comments, or white space."""
    opening: Object | None = None
    """A first chunk without choices."""
    delta: Object = field(default_factory=dict)
    choice: Object = field(default_factory=dict)
    """The fields of each delta, and of each choice, that OpenAI does not have."""
    usage_place: Literal["apart", "apart with a choice", "last"] = "apart"
    """Whether the usage has a chunk of its own, if it was asked for, or is always in the last one
    that has a choice.
    """
    usage: Callable[[Object], Object] = _nothing
    """Additional fields of the usage. None removes a field of OpenAI."""
    closing: Callable[[Object], Object] = _nothing
    """Additional fields of the last chunk, made of the usage."""
    content_parts: bool = False
    """Whether content is a list of parts."""


def _kind(refusal: Refusal) -> str:
    return KINDS.get(refusal.status, "api_error")


def _as_openai(refusal: Refusal) -> Object:
    return {
        "error": {
            "message": refusal.message,
            "type": "invalid_request_error",
            "param": refusal.param,
            "code": refusal.code,
        }
    }


def _as_azure(refusal: Refusal) -> Object:
    if refusal.param:
        return _as_openai(refusal)
    return {"error": {"code": refusal.code or str(refusal.status), "message": refusal.message}}


def _as_openrouter(refusal: Refusal) -> Object:
    return {"error": {"message": refusal.message, "code": refusal.status}, "user_id": "user_1"}


def _as_groq(refusal: Refusal) -> Object:
    fields = {"message": refusal.message, "type": "invalid_request_error", "code": refusal.code}
    return {"error": fields}


def _as_together(refusal: Refusal) -> Object:
    return {"id": "oAbc", **_as_openai(refusal)}


def _as_mistral(refusal: Refusal) -> Object:
    """A parameter that is not known is in FastAPI's `detail`, inside the message."""
    if refusal.status == 401:
        return {"detail": "Unauthorized"}
    message: Any = refusal.message
    if refusal.param:
        entry = {"type": "extra_forbidden", "loc": ["body", refusal.param], "msg": message}
        message = {"detail": [{**entry, "input": 64}]}
    kind = "invalid_model" if refusal.code else "invalid_request_error"
    return {
        "object": "error",
        "message": message,
        "type": kind,
        "param": None,
        "code": refusal.code,
    }


def _as_deepseek(refusal: Refusal) -> Object:
    kind = _kind(refusal)
    code = "invalid_request_error"
    return {"error": {"message": refusal.message, "type": kind, "param": None, "code": code}}


def _as_ollama(refusal: Refusal) -> Object:
    kind = _kind(refusal)
    return {"error": {"message": refusal.message, "type": kind, "param": None, "code": None}}


def _as_vllm(refusal: Refusal) -> Object:
    if refusal.status == 401:
        return {"error": "Unauthorized"}
    kind = "NotFoundError" if refusal.status == 404 else "BadRequestError"
    return {
        "object": "error",
        "message": refusal.message,
        "type": kind,
        "param": None,
        "code": refusal.status,
    }


def _as_llama_cpp(refusal: Refusal) -> Object:
    return {
        "error": {"code": refusal.status, "message": refusal.message, "type": _kind(refusal)},
    }


def _use_the_new_name(name: str) -> Refusal:
    message = f"Unsupported parameter: '{name}' is not supported with this model. "
    message += f"Use '{NEW}' instead."
    return Refusal(400, message, "unsupported_parameter", param=name)


def _extra(name: str) -> Refusal:
    return Refusal(422, "Extra inputs are not permitted", param=name)


def _extra_of_old_vllm(name: str) -> Refusal:
    entry = {"type": "extra_forbidden", "loc": ("body", name)}
    return Refusal(400, str([{**entry, "msg": "Extra inputs are not permitted", "input": 64}]))


def _counts_alone(_: Object) -> Object:
    return {"prompt_tokens_details": None, "completion_tokens_details": None}


def _cost_of_openrouter(_: Object) -> Object:
    details = {"upstream_inference_cost": None}
    return {"cost": 0.00000525, "is_byok": False, "cost_details": details}


def _times_of_groq(_: Object) -> Object:
    times = {"queue_time": 0.05, "prompt_time": 0.01, "completion_time": 0.1, "total_time": 0.11}
    return {**_counts_alone(_), **times}


def _hits_of_deepseek(usage: Object) -> Object:
    return {
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
        "prompt_cache_hit_tokens": 0,
        "prompt_cache_miss_tokens": usage["prompt_tokens"],
    }


def _x_groq(usage: Object) -> Object:
    return {"x_groq": {"id": "req_1", "usage": usage}}


def _timings(usage: Object) -> Object:
    return {"timings": {"prompt_n": usage["prompt_tokens"], "predicted_n": 1}}


_FILTERS = {"hate": {"filtered": False, "severity": "safe"}}
_FILTERED = [{"prompt_index": 0, "content_filter_results": _FILTERS}]
_BOTH: Mapping[str, Literal["heeds"]] = {OLD: "heeds", NEW: "heeds"}
_ONLY_OLD: Mapping[str, Literal["heeds", "ignores"]] = {OLD: "heeds", NEW: "ignores"}

DIALECTS = (
    Dialect(
        name="openai",
        limits={OLD: "refuses", NEW: "heeds"},
        unknown_limit=_use_the_new_name,
        error=_as_openai,
        unknown_model=Refusal(
            404,
            "The model `no-such-model` does not exist or you do not have access to it.",
            "model_not_found",
        ),
    ),
    Dialect(
        name="azure",
        limits={OLD: "refuses", NEW: "heeds"},
        unknown_limit=_use_the_new_name,
        error=_as_azure,
        unknown_model=Refusal(
            404, "The API deployment for this resource does not exist.", "DeploymentNotFound"
        ),
        opening={"prompt_filter_results": _FILTERED},
        choice={"content_filter_results": _FILTERS},
    ),
    Dialect(
        name="openrouter",
        limits=_BOTH,
        error=_as_openrouter,
        unknown_model=Refusal(400, "no-such-model is not a valid model ID"),
        before=b": OPENROUTER PROCESSING\n\n" * 2,
        choice={"native_finish_reason": None},
        delta={"reasoning": None},
        usage_place="apart with a choice",
        usage=_cost_of_openrouter,
    ),
    Dialect(
        name="groq",
        limits=_BOTH,
        error=_as_groq,
        unknown_model=Refusal(
            404,
            "The model `no-such-model` does not exist or you do not have access to it.",
            "model_not_found",
        ),
        usage=_times_of_groq,
        closing=_x_groq,
    ),
    Dialect(
        name="together",
        limits=_ONLY_OLD,
        error=_as_together,
        unknown_model=Refusal(404, "Unable to access model no-such-model.", "model_not_available"),
        choice={"text": "", "seed": None},
        usage_place="last",
        usage=_counts_alone,
    ),
    Dialect(
        name="mistral",
        limits={OLD: "heeds", NEW: "refuses"},
        unknown_limit=_extra,
        error=_as_mistral,
        unknown_model=Refusal(400, "Invalid model: no-such-model", "1500"),
        usage_place="last",
        usage=_counts_alone,
        content_parts=True,
    ),
    Dialect(
        name="deepseek",
        limits=_ONLY_OLD,
        error=_as_deepseek,
        unknown_model=Refusal(400, "Model Not Exist"),
        before=b": keep-alive\n\n",
        delta={"reasoning_content": None},
        usage_place="last",
        usage=_hits_of_deepseek,
    ),
    Dialect(
        name="ollama",
        limits=_ONLY_OLD,
        needs_key=False,
        error=_as_ollama,
        unknown_model=Refusal(404, 'model "no-such-model" not found, try pulling it first'),
        delta={"role": "assistant"},
        usage=_counts_alone,
    ),
    Dialect(
        name="vllm",
        limits=_BOTH,
        needs_key=False,
        error=_as_vllm,
        unknown_model=Refusal(404, "The model `no-such-model` does not exist."),
        choice={"stop_reason": None},
        usage=_counts_alone,
    ),
    Dialect(
        name="vllm-0.6",
        limits={OLD: "heeds", NEW: "refuses"},
        unknown_limit=_extra_of_old_vllm,
        needs_key=False,
        error=_as_vllm,
        unknown_model=Refusal(404, "The model `no-such-model` does not exist."),
        usage=_counts_alone,
    ),
    Dialect(
        name="llama.cpp",
        limits=_BOTH,
        needs_key=False,
        error=_as_llama_cpp,
        unknown_model=None,
        usage=_counts_alone,
        closing=_timings,
    ),
)
BY_NAME = {dialect.name: dialect for dialect in DIALECTS}
