"""Findings about an entry of `models.toml` from a failed call."""

import re
from collections.abc import Callable

from gateway.findings import Finding
from gateway.policy import Model
from gateway.providers.base import MAXIMA, BadAnswer, Blame, ProviderFailure
from gateway.providers.checking.findings import Place, problem

UNKNOWN_MODEL = re.compile(
    r"(?:model|deployment).{0,200}(?:not exist|not found|no access|not available|not supported"
    r"|unknown)|(?:invalid|unknown|no such|unable to access|not a valid) (?:deployment|model)"
    r"|no endpoints found|model is not",
    re.IGNORECASE | re.DOTALL,
)
UNKNOWN_CODES = {
    *("model_not_found", "model_not_available", "DeploymentNotFound", "invalid_model"),
    *("NotFoundError", "unknown_model", "not_found_error"),
}
UNFUNDED = re.compile(r"credit|quota|balance|billing|payment", re.IGNORECASE)


def finding_of(
    model: Model, failure: ProviderFailure, place: Place, redact: Callable[[str], str]
) -> Finding:
    """The problem in the entry, and how to fix it. `redact` hides secrets in provider texts."""
    words = redact(f": {failure.reason}") if failure.reason else ""
    said = f"{model.provider} answers {failure.status}{words}"
    if failure.status is None:
        return _without_a_status(model, failure, place)
    if _is_unfunded(failure):
        return problem("account", f"{said}; the account there needs credit or a higher limit")
    if failure.status in {401, 403}:
        return problem("credential", f"{said}; {place.credential}")
    if _is_unknown(model, failure):
        return problem("name", f"{said}; correct `name` in {place.model}")
    if failure.status == 404 or failure.status < 400:
        return problem("address", f"{said}; {place.address}")
    if any(name in (failure.param or failure.reason or "") for name in MAXIMA):
        return problem("output limit", f"{said}; it takes neither {' nor '.join(MAXIMA)} of 16")
    if failure.blame is Blame.PROVIDER:
        return problem("server", f"{said}; it is busy or out of order: check again later")
    return problem("request", f"{said}; the server does not take what this service sends")


def _without_a_status(model: Model, failure: ProviderFailure, place: Place) -> Finding:
    if isinstance(failure, BadAnswer):
        said = f"{model.provider} answers in a form that is not known here ({failure})"
        return problem("streaming", f"{said}; {place.address}")
    if failure.billed is False:
        return problem("address", f"{model.provider} cannot be reached; {place.address}")
    said = f"{model.provider} did not finish its answer ({failure})"
    return problem("streaming", f"{said}; check again, and ask the server's operator if it lasts")


def _is_unfunded(failure: ProviderFailure) -> bool:
    words = f"{failure.code} {failure.reason}"
    is_account = failure.blame is Blame.ACCOUNT and failure.status not in {401, 403}
    return failure.status == 402 or is_account or (failure.status == 429 and _says(UNFUNDED, words))


def _is_unknown(model: Model, failure: ProviderFailure) -> bool:
    """Whether the provider does not know the model.

    Servers answer 404 or 400 for an unknown model; a wrong path is a 404 as well.
    """
    if failure.status not in {400, 404, 422}:
        return False
    reason = failure.reason or ""
    is_named = failure.code in UNKNOWN_CODES or model.name in reason
    return (is_named and failure.status == 404) or _says(UNKNOWN_MODEL, reason)


def _says(pattern: re.Pattern[str], text: str) -> bool:
    return pattern.search(text) is not None
