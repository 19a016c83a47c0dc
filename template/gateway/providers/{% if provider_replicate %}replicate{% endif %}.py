"""Replicate: creates predictions, polls them and cancels them."""

import asyncio
import math
import re
from collections.abc import Mapping
from typing import Any

import aiohttp

from gateway.config import GatewayConfig
from gateway.policy import Kind
from gateway.providers.base import (
    BadAnswer,
    Blame,
    Body,
    Chunks,
    Provider,
    ProviderFailure,
    ProviderRequest,
    Reply,
    Usage,
    compute,
    is_retryable,
)
from gateway.providers.completion import token_count
from gateway.providers.error_answers import ErrorCase, ErrorTable
from gateway.providers.http import Http
from gateway.providers.parameters import Table

# The text tells a version that the operator declared wrongly from a wrong input. Only predictions
# are billed (https://replicate.com/docs/topics/billing), and a refusal creates none; after a 5xx
# answer there may be one.
ERRORS = ErrorTable(
    codes={},
    texts=(
        (
            re.compile(r"invalid version or not permitted|version does not exist", re.IGNORECASE),
            ErrorCase(Blame.OPERATOR),
        ),
    ),
    statuses={},
)
OWN_ADDRESS = "https://api.replicate.com"
# Replicate holds a request open for a minute at most, and cancels after five seconds at least.
MAX_WAIT_SECONDS = 60
SHORTEST_RUN_SECONDS = 5
FIRST_PAUSE_SECONDS = 0.25
MAX_PAUSE_SECONDS = 4.0
CANCEL_SECONDS = 5.0
# The owners whose models without a version are official ones, which are billed by the output
# (https://replicate.com/collections/official).
OFFICIAL_OWNERS = frozenset(
    {
        "anthropic",
        "black-forest-labs",
        "bytedance",
        "deepseek-ai",
        "google",
        "ideogram-ai",
        "kwaivgi",
        "leonardoai",
        "luma",
        "meta",
        "minimax",
        "openai",
        "pixverse",
        "prunaai",
        "qwen",
        "recraft-ai",
        "runwayml",
        "stability-ai",
        "wan-video",
        "xai",
    }
)
REMOTE_ID = re.compile(r"[\w-]{1,200}", re.ASCII)
RUNNING = {"starting", "processing"}
# The texts of Replicate and of Django REST framework, on which its API is built.
THROTTLED = re.compile(
    r"resets in ~?(\d{1,6}(?:\.\d{1,6})?) ?s|available in (\d{1,6}(?:\.\d{1,6})?) second"
)
# The states of a prediction that may have ended before it ran: then it is free.
NEVER_RAN = frozenset({"aborted", "canceled", "failed"})


class ReplicateProvider(Provider):
    """Any model with any input, billed by seconds of compute or by outputs."""

    name = "replicate"
    least_seconds = SHORTEST_RUN_SECONDS
    # The input is the model's own: Replicate checks it against the model's schema.
    parameters: Mapping[Kind, Table | None] = {"task": None}
    billed_by_time: frozenset[Kind] = frozenset({"task"})
    counted: frozenset[Kind] = frozenset({"task"})
    official_owners = OFFICIAL_OWNERS

    def __init__(self, session: aiohttp.ClientSession, base_url: str, token: str) -> None:
        base_url = base_url.rstrip("/").removesuffix("/v1")
        self._http = Http(session, base_url, token, ERRORS, throttled_seconds)
        is_missing = base_url == OWN_ADDRESS and not token
        self._missing_credential = "REPLICATE_API_TOKEN" if is_missing else None

    def missing_credential(self) -> str | None:
        return self._missing_credential

    async def answer(self, request: ProviderRequest) -> Reply:
        prediction = await self._create(request)
        if prediction.get("status") in RUNNING:
            await request.note_answer()
            if request.keep:
                await request.keep()
        return _reply(request, await self._end(request, prediction))

    def stream(self, request: ProviderRequest) -> Chunks:
        """Raises `BadAnswer`: its models are tasks, which have no stream."""
        raise BadAnswer("tasks have no stream", billed=False)

    async def cancel(self, request: ProviderRequest) -> Usage | None:
        """Cancel the prediction, which ends its bill. Returns its usage if it has ended by then."""
        if request.remote_id is None:
            return None
        url = f"{self._http.base_url}/v1/predictions/{request.remote_id}/cancel"
        async with asyncio.timeout(CANCEL_SECONDS):
            prediction = _checked(request, await self._http.json(request, "POST", url))
        return None if prediction.get("status") in RUNNING else _usage(request, prediction)

    async def fetch_result(self, request: ProviderRequest) -> Reply | None:
        """The reply of a prediction that an earlier process created; None while it runs."""
        prediction = await self._poll(request)
        return None if prediction.get("status") in RUNNING else _reply(request, prediction)

    async def _create(self, request: ProviderRequest) -> Body:
        seconds = request.deadline.remaining
        headers = {
            "Prefer": f"wait={max(1, min(MAX_WAIT_SECONDS, int(seconds)))}",
            "Cancel-After": f"{max(SHORTEST_RUN_SECONDS, math.ceil(seconds))}s",
        }
        path, body = _target(request.model.name, request.body)
        url = f"{self._http.base_url}/v1/{path}"
        return _checked(request, await self._http.json(request, "POST", url, body, **headers))

    async def _end(self, request: ProviderRequest, prediction: Body) -> Body:
        """The prediction once it has ended. A failed poll does not end it: polls are retried."""
        pause, retry_after = FIRST_PAUSE_SECONDS, 0.0
        while prediction.get("status") in RUNNING:
            await asyncio.sleep(max(pause, retry_after))
            pause = min(2 * pause, MAX_PAUSE_SECONDS)
            try:
                prediction, retry_after = await self._poll(request), 0.0
            except ProviderFailure as failure:
                if not is_retryable(failure):
                    raise
                retry_after = failure.retry_after or 0.0
        return prediction

    async def _poll(self, request: ProviderRequest) -> Body:
        """The prediction, read by its id. Its `urls` may be reachable only for the provider."""
        url = f"{self._http.base_url}/v1/predictions/{request.remote_id}"
        return _checked(request, await self._http.json(request, "GET", url))


def _target(name: str, given: Body) -> tuple[str, Body]:
    """Path and body, for a version (`owner/model:version` or its hash) or an official model."""
    version = name.rpartition(":")[2]
    if "/" in version:
        return f"models/{name}/predictions", {"input": given}
    return "predictions", {"version": version, "input": given}


def _checked(request: ProviderRequest, answer: Any) -> Body:
    prediction: Body = answer if isinstance(answer, dict) else {}
    remote_id, status = prediction.get("id"), prediction.get("status")
    if not (isinstance(remote_id, str) and REMOTE_ID.fullmatch(remote_id)):
        raise BadAnswer("the answer is no prediction")
    request.remote_id = remote_id
    if not isinstance(status, str):
        raise BadAnswer("the prediction has no status")
    return prediction


def _reply(request: ProviderRequest, prediction: Body) -> Reply:
    usage, status = _usage(request, prediction), prediction.get("status")
    if status != "succeeded":
        reason = prediction.get("error")
        raise BadAnswer(
            f"the prediction ended as {status!r}",
            usage=usage,
            reason=reason if isinstance(reason, str) else None,
        )
    return Reply(prediction.get("output"), usage)


def _usage(request: ProviderRequest, prediction: Body) -> Usage | None:
    """The usage of a prediction that has ended; None if it is unknown.

    Nothing if it never started, else seconds of compute, and outputs for a model that is billed by
    them.
    """
    status, metrics = prediction.get("status"), prediction.get("metrics")
    used = compute(metrics.get("predict_time")) if isinstance(metrics, dict) else None
    has_run = prediction.get("started_at", True) or (used is not None and used.microseconds)
    if status in NEVER_RAN and not has_run:
        return Usage()
    if request.model.usd_per_output is None:
        return used
    if status != "succeeded":
        return None
    reported = metrics.get("image_count") if isinstance(metrics, dict) else None
    output = prediction.get("output")
    counted = len(output) if isinstance(output, list) else int(output is not None)
    outputs = counted if reported is None else token_count(reported)
    return None if outputs is None else (used or Usage())._replace(outputs=outputs)


def throttled_seconds(details: Mapping[str, Any]) -> float | None:
    """The pause in seconds in the text of a throttled answer, or None."""
    found = THROTTLED.search(str(details.get("detail", "")))
    return float(found[1] or found[2]) if found else None


def open_provider(config: GatewayConfig, session: aiohttp.ClientSession) -> ReplicateProvider:
    """The provider of `REPLICATE_BASE_URL`. Replicate itself needs `REPLICATE_API_TOKEN`."""
    return ReplicateProvider(
        session, config.replicate_base_url, config.replicate_api_token.get_secret_value()
    )
