"""The numbers and names that the policy files may contain: the service works with any of them."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

# Limits of columns, timers and limiters, with room for sums.
MAX_TOKENS, MAX_OUTPUT_TOKENS, MAX_OUTPUTS = 2**31 - 1, 10**8, 10**6
MAX_SECONDS, MAX_RATE = 7 * 24 * 3600, 10**8
# A header carries a model's name, and columns hold both.
MODEL_NAME = re.compile(r"[!-~](?:[ -~]{0,198}[!-~])?")
PLAN_NAME = re.compile(r"\S(?:.{0,98}\S)?")
Tokens = Annotated[int, Field(ge=1, le=MAX_TOKENS)]
OutputTokens = Annotated[int, Field(ge=1, le=MAX_OUTPUT_TOKENS)]
Outputs = Annotated[int, Field(ge=1, le=MAX_OUTPUTS)]
Seconds = Annotated[int, Field(ge=1, le=MAX_SECONDS)]
Rate = Annotated[int, Field(ge=1, le=MAX_RATE)]


def matching(form: re.Pattern[str], problem: str) -> AfterValidator:
    """A validator that reports `problem` for a text that is not printable and of this form."""

    def check(given: str) -> str:
        if not (form.fullmatch(given) and given.isprintable()):
            raise ValueError(problem)
        return given

    return AfterValidator(check)


ModelName = Annotated[
    str,
    matching(MODEL_NAME, "a model's name has 1 to 200 characters of ASCII, as a header carries it"),
]
PlanName = Annotated[str, matching(PLAN_NAME, "a plan's name has 1 to 100 visible characters")]
