"""The parameter for the largest output in requests to a server that speaks OpenAI's API.

OpenAI's newer models refuse `max_tokens`; other servers refuse `max_completion_tokens`, or ignore
it and write without a limit. So the declared one is sent, and the other one only after the server
has refused the first by name.
"""

import re
from collections.abc import Mapping
from typing import Any

import aiohttp

from gateway.providers.base import MAXIMA, Body, ProviderFailure, ProviderRequest
from gateway.providers.error_answers import CONTEXT_LENGTH, ErrorTable
from gateway.providers.http import Http

UNKNOWN = re.compile(
    r"unsupported|unknown|unrecogni[sz]ed|unexpected|deprecated|extra (?:inputs|fields)"
    r"|not (?:be )?(?:supported|permitted|allowed|accepted|recogni[sz]ed|valid for)"
    r"|(?:use|try) .{0,60}instead",
    re.IGNORECASE,
)
# The server knows the parameter and refuses its value. The other parameter would lift the limit
# where the server ignores it.
WRONG_VALUE = re.compile(
    r"too (?:large|big|long|high|small|low)|at (?:most|least)|exceed"
    r"|maximum (?:is|value|of|context|allowed)|minimum|out of range|\bbetween\b"
    r"|(?:less|more|greater|larger|smaller|higher) than|positive|must be an? |input should be",
    re.IGNORECASE,
)


class LimitedHttp(Http):
    """Requests to one server, with the largest output under the parameter that it accepts.

    The parameter that a model's server accepts is kept for the lifetime of the process.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        token: str,
        errors: ErrorTable,
        output_limit: str,
    ) -> None:
        super().__init__(session, base_url, token, errors)
        self._declared = output_limit
        self._taken: dict[str, str] = {}

    def output_limit(self, model: str) -> str:
        """The parameter for a model: the one that the server accepted, else the declared one."""
        return self._taken.get(model, self._declared)

    async def send(
        self, request: ProviderRequest, method: str, url: str, json: Any, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        """As `Http.send`. Sends the body once more, with the other parameter, if the server refuses
        the first by name.
        """
        try:
            return await super().send(request, method, url, json, headers)
        except ProviderFailure as refusal:
            if (name := _refused(json, refusal)) is None:
                raise
            other = MAXIMA[1 - MAXIMA.index(name)]
            body = {other if each == name else each: value for each, value in json.items()}
            response = await self._again(request, method, url, body, headers, refusal)
            self._taken[body["model"]] = other
            request.output_limits += (other,)
            return response

    async def _again(
        self,
        request: ProviderRequest,
        method: str,
        url: str,
        body: Body,
        headers: Mapping[str, str],
        refusal: ProviderFailure,
    ) -> aiohttp.ClientResponse:
        """The response. Raises the first refusal if the server refuses both parameters."""
        try:
            return await super().send(request, method, url, body, headers)
        except ProviderFailure as failure:
            if _refused(body, failure):
                raise refusal from failure
            raise


def _refused(body: Any, failure: ProviderFailure) -> str | None:
    """The parameter for the largest output in `body`, if the server does not know it."""
    if failure.status not in {400, 422} or failure.billed is not False:
        return None
    name = next((name for name in MAXIMA if isinstance(body, dict) and name in body), None)
    reason, code = failure.reason or "", failure.code or ""
    if name is None or code == CONTEXT_LENGTH or "_value" in code or WRONG_VALUE.search(reason):
        return None
    is_param = (failure.param or "").rpartition(".")[2] == name
    is_named = re.search(rf"\b{name}\b", reason) and UNKNOWN.search(reason)
    return name if is_param or is_named else None
