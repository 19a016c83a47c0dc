"""The drill's verdicts: only what is seen word for word holds, whatever goes wrong."""

from typing import Any, cast

import pytest

from drill.environment import Answer, Environment, tally
from drill.guarantees import Look, guarantee


class EmptyEnvironment:
    """An environment that only counts how often it is cleaned up."""

    def __init__(self) -> None:
        self.simulator = self
        self.resets = 0

    async def reset(self) -> None:
        self.resets += 1


async def _sees_it(_: Environment) -> str:
    return "12 times ok"


async def _sees_less(_: Environment) -> str:
    return "11 times ok"


async def _fails(_: Environment) -> str:
    raise ValueError("there is nothing to be seen")


@pytest.mark.parametrize(
    ("look", "seen", "verdict"),
    [
        (_sees_it, "12 times ok", "holds"),
        (_sees_less, "11 times ok", "broken"),
        (_fails, "ValueError: there is nothing to be seen", "broken"),
    ],
)
async def test_a_promise_holds_when_what_is_expected_is_seen(
    look: Look, seen: str, verdict: str
) -> None:
    environment = EmptyEnvironment()
    finding = await guarantee("It is kept", "12 times ok")(look).find(cast(Any, environment))
    assert finding == ("It is kept", "12 times ok", seen, verdict)
    assert environment.resets == 1


def test_answers_are_counted_by_status_code_and_parameter() -> None:
    refusal = b'{"error": {"code": "rate_limit_exceeded", "param": "tokens"}}'
    answers = [Answer(status, {}, refusal, 0.1) for status in (429, 200, 201, 429, 429)]
    assert tally(answers) == "2 times ok, 3 times 429 rate_limit_exceeded tokens"
