"""Replicate's API: predictions that are created, awaited or polled, and cancelled.

A prediction moves one state with each poll instead of with time, so every run is the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.simulator.content import say
from tests.simulator.exchange import Exchange, Reply, Route, encode
from tests.simulator.faults import ANYWHERE, Kind, Refusal, RefusedError

PARAMETERS = frozenset(
    {"input", "version", "stream", "webhook", "webhook_completed", "webhook_events_filter"}
)
PREDICTION_FAULTS: frozenset[Kind] = ANYWHERE | {
    "empty",
    "no_usage",
    "full_usage",
    "excess_usage",
    "failed",
    "canceled",
    "aborted",
    "endless",
    "cold",
    "early",
    "foreign_url",
}

_SECONDS = 1.5
_CREATED, _STARTED, _COMPLETED = (
    f"2025-10-09T08:53:{second}.000000Z" for second in ("20", "21", "22")
)
_TERMINAL = {"succeeded", "failed", "canceled", "aborted"}
_TITLES = {
    401: "Unauthenticated",
    402: "Insufficient credit",
    404: "Not found",
    422: "Input validation failed",
}


@dataclass(slots=True)
class _Prediction:
    """A prediction as the provider keeps it; the fault of its creation decides its fate."""

    created_by: Exchange
    model: str
    version: str
    status: str = "starting"
    has_run: bool = False

    @property
    def id(self) -> str:
        return f"sim{self.created_by.number:08d}"

    @property
    def has_ended(self) -> bool:
        return self.status in _TERMINAL

    @property
    def seconds(self) -> float:
        """How long it ran, which is what Replicate bills."""
        fault = self.created_by.fault
        if fault is not None and fault.kind == "full_usage":
            return fault.seconds if self.has_run else 0
        excess = fault.excess if fault is not None and fault.kind == "excess_usage" else 0
        return _SECONDS + excess if self.has_run else 0

    def advance(self) -> None:
        """Move one state on: starting, processing, the end."""
        end = self._end()
        if self.status == "starting" and end != "aborted":
            self.status, self.has_run = "processing", True
        elif not self.has_ended and not self.created_by.plays("endless"):
            self.status = end

    def wait(self) -> None:
        """Run to the end, unless the fault outlasts the wait."""
        if not self.created_by.plays("cold", "endless"):
            self.advance()
        if not self.created_by.plays("cold", "endless", "early"):
            self.advance()

    def cancel(self) -> None:
        """Stop it; one that has ended stays as it is."""
        if not self.has_ended:
            self.status = "canceled"

    def as_json(self) -> dict[str, Any]:
        """Describe it with every field that Replicate always sends."""
        return {
            "id": self.id,
            "model": self.model,
            "version": self.version,
            "input": self.created_by.body["input"],
            "logs": "",
            "output": self._output(),
            "data_removed": False,
            "error": "The model raised an exception." if self.status == "failed" else None,
            "source": "api",
            "status": self.status,
            "created_at": _CREATED,
            "started_at": _STARTED if self.has_run else None,
            "completed_at": _COMPLETED if self.has_ended else None,
            "metrics": self._metrics(),
            "urls": self._urls(),
        }

    def _end(self) -> str:
        fault = self.created_by.fault
        if fault is not None and fault.kind in ("failed", "canceled", "aborted"):
            return fault.kind
        return "succeeded"

    def _output(self) -> list[str] | None:
        """Language models answer with a list of pieces."""
        early = self.status == "processing" and self.created_by.plays("early")
        if self.created_by.plays("empty") or not (early or self.status == "succeeded"):
            return None
        return list(say(str(self.created_by.body["input"].get("prompt", ""))))

    def _metrics(self) -> dict[str, float]:
        if not (self.has_ended and self.has_run) or self.created_by.plays("no_usage"):
            return {}
        return {"predict_time": self.seconds, "total_time": self.seconds + 0.5}

    def _urls(self) -> dict[str, str]:
        """Say where to poll and cancel; a client must not send its token to another host."""
        foreign = self.created_by.plays("foreign_url")
        base = self.created_by.elsewhere if foreign else self.created_by.url + Replicate.base
        url = f"{base}/v1/predictions/{self.id}"
        return {"get": url, "cancel": f"{url}/cancel"}


class Replicate:
    """The wire format behind `REPLICATE_BASE_URL`."""

    name = "replicate"
    base = "/replicate"
    variable = "REPLICATE_BASE_URL"
    needs_key = True

    def __init__(self) -> None:
        self._predictions: dict[str, _Prediction] = {}

    def routes(self) -> Sequence[Route]:
        """List the routes."""
        model = "/v1/models/{owner}/{name}/predictions"
        return (
            Route("POST", "/v1/predictions", self._create_by_version, PREDICTION_FAULTS),
            Route("POST", model, self._create_by_model, PREDICTION_FAULTS),
            Route("GET", "/v1/predictions/{id}", self._poll),
            Route("POST", "/v1/predictions/{id}/cancel", self._cancel),
        )

    def headers(self, _: int) -> dict[str, str]:
        """Empty: clients need no header of Replicate."""
        return {}

    def refuse(self, refusal: Refusal) -> Reply:
        """Answer a problem document; a throttled answer has only a detail.

        A field that is missing or unknown is a 422.
        """
        status = 422 if refusal.param else refusal.status
        problem: dict[str, Any] = {"detail": refusal.message, "status": status}
        if status in _TITLES:
            problem["title"] = _TITLES[status]
        if status == 429 and refusal.seconds is not None:
            rest = f"Your rate limit resets in ~{refusal.seconds:.0f}s."
            problem = {"detail": f"Request was throttled. {rest}"}
        return Reply(encode(problem), status=status, headers=refusal.headers)

    def reset(self) -> None:
        """Forget the predictions."""
        self._predictions.clear()

    def _create_by_version(self, exchange: Exchange) -> Reply:
        """Create from `version`, which may name its model: `owner/name:hash`."""
        exchange.require("version")
        model, _, version = exchange.body["version"].rpartition(":")
        return self._create(exchange, model or "simulator/model", version)

    def _create_by_model(self, exchange: Exchange) -> Reply:
        """Create from the model's name; its version is Replicate's secret then."""
        model = "{owner}/{name}".format_map(exchange.params)
        return self._create(exchange, model, "hidden")

    def _create(self, exchange: Exchange, model: str, version: str) -> Reply:
        """Answer 201, or 202 if the prediction has not ended within the wait."""
        exchange.allow(PARAMETERS)
        exchange.require("input")
        prediction = _Prediction(exchange, model, version)
        self._predictions[prediction.id] = prediction
        waited = _waits(exchange.headers)
        if waited:
            prediction.wait()
        in_vain = waited and prediction.status == "starting"
        return _describe(prediction, status=202 if in_vain else 201, ended=prediction.has_ended)

    def _poll(self, exchange: Exchange) -> Reply:
        prediction = self._find(exchange)
        had_ended = prediction.has_ended
        prediction.advance()
        return _describe(prediction, ended=prediction.has_ended and not had_ended)

    def _cancel(self, exchange: Exchange) -> Reply:
        prediction = self._find(exchange)
        had_ended = prediction.has_ended
        prediction.cancel()
        return _describe(prediction, ended=not had_ended)

    def _find(self, exchange: Exchange) -> _Prediction:
        prediction = self._predictions.get(exchange.params["id"])
        if prediction is None:
            raise RefusedError(Refusal(404, "The requested resource could not be found."))
        return prediction


def _describe(prediction: _Prediction, *, ended: bool, status: int = 200) -> Reply:
    """Answer with the prediction; the request that sees it end is the one that it is billed to."""
    billed = {"seconds": prediction.seconds} if ended else None
    return Reply(encode(prediction.as_json()), status=status, billed=billed)


def _waits(headers: Mapping[str, str]) -> bool:
    """Read `Prefer: wait` or `Prefer: wait=5`; the simulator needs no seconds."""
    return headers.get("prefer", "").partition("=")[0] == "wait"
