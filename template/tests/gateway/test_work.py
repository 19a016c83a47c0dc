"""No input costs more than its size: what is counted is work, not time.

The texts are made to be slow: combining marks, nested brackets, long runs, many names.
"""

import json
import pkgutil
import re
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import FrameType
from typing import Any

import httpx2
import pytest

from gateway.http import bodies
from gateway.pipeline import failure_report
from gateway.providers import error_answers, offline
from gateway.telemetry import redaction
from tests.fixtures.service import Start
from tests.pattern_steps import steps
from tests.support import MODELS_TOML, Service, chat, unique

CHAT = "/v1/chat/completions"
JSON = {"Content-Type": "application/json"}
# What is looked for in a text of a request or an answer; those of `text_bound` have one length.
PATTERNS = [
    *map(re.compile, redaction.PATTERNS),
    *(redaction.BEFORE_AT, redaction.IN_ADDRESS, re.compile(bodies.TEXT.pattern.decode())),
    *(failure_report.WORD, error_answers.TOO_LONG, offline.TOKEN),
]
RUNS = (
    *("a", "0", "@", "-", "_", "+", ".", ":", "/", " ", "\n", '"', "\\", "[", "{", "é", "漢"),
    *("a@", "@a", "a.", "a-", '\\"', '"\\', "eyj", "eyj-", "eyjaaaaaaaaaa.", "eyjaaaaaaaaaa.-"),
    *("_live_", "a_live_aaaaaaaaaaa", "-_live_", "://", "://a", "://a:", "://a:@"),
    *("sk-", "bearer ", "\u0300\u0316", "é\u0316", "\ufdfa", "context length ", "maximum context "),
)
ENDS = ("", "!", "@ x")
SIZE = 300
RUN = 40
# What is written whatever the body is: an answer, a line of the log.
ROOM = 4000


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: ascii(pattern.pattern)[:40])
def test_no_pattern_goes_back_over_what_it_has_read(pattern: re.Pattern[str]) -> None:
    for run in RUNS:
        for end in ENDS:
            once, twice = (steps(pattern, run * size + end) for size in (RUN, 2 * RUN))
            assert twice <= 2.2 * once, (run, end)


def test_a_quadratic_pattern_is_seen() -> None:
    slow = re.compile(r"[\w.+-]+@[\w-]+")
    assert steps(slow, "a" * 2 * RUN) > 3 * steps(slow, "a" * RUN)


# What writes JSON of a request or an answer.
WRITERS = (
    *("gateway.pipeline.generation.to_json", "gateway.pipeline.generation.encode"),
    *("gateway.http.context.encode", "gateway.pricing.to_json"),
    *(
        "gateway.ledger.entries.encode",
        "gateway.idempotency.idempotency.to_json",
        "gateway.http.chat_stream.encode",
    ),
    *("gateway.telemetry.logging.encode", "gateway.http.response_stream.encode"),
)
# So many times a body is written at most: two looks at it, a bound, the request, the record, the
# answer, what is kept for a replay, the log.
PASSES = 8


def _messages(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"model": "offline/echo", "messages": list(messages)}


def _said(text: str, count: int) -> dict[str, Any]:
    parts = [{"type": "text", "text": text}] * count
    return _messages({"role": "assistant", "content": parts}, {"role": "user", "content": parts})


def _turns(count: int) -> dict[str, Any]:
    thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "x"}]}
    call = {"type": "function_call", "call_id": "1", "name": "x", "arguments": "{}"}
    return {"model": "offline/echo", "input": [thought, call] * (count // 2)}


# What is made slow, by its name: the route, and the body of a size.
BODIES: dict[str, tuple[str, Callable[[int], Any]]] = {
    "marks": (CHAT, lambda size: chat("\u0300\u0316" * size)),
    "long letters": (CHAT, lambda size: chat("\ufdfa" * size)),
    "a run": (CHAT, lambda size: chat("@" + "a" * size)),
    "addresses": (CHAT, lambda size: chat("a@" * size)),
    "a stream": (CHAT, lambda size: chat("a " * size, stream=True)),
    "messages": (CHAT, lambda size: _messages(*[{"role": "user", "content": "é"}] * size)),
    "parts": (CHAT, lambda size: _said("é", size)),
    "tools": (CHAT, lambda size: chat(tools=[{"type": "function", "function": {}}] * size)),
    "names in a tool": (CHAT, lambda size: chat(tools=[{"type": "function", **_names(size)}])),
    "unknown names": (CHAT, lambda size: chat() | _names(size)),
    "wrong texts": (CHAT, lambda size: chat(stop=[1] * size)),
    "wrong numbers": (CHAT, lambda size: chat(logit_bias=dict.fromkeys(_names(size), "x"))),
    "a long name": (CHAT, lambda size: chat() | {"x" * size: 1}),
    "texts": ("/v1/embeddings", lambda size: _inputs(["é"] * size)),
    "token ids": ("/v1/embeddings", lambda size: _inputs([[1]] * size)),
    "turns": ("/v1/responses", _turns),
    "a prediction": ("/v1/predictions", lambda size: _prediction("é" * size)),
}


def _names(count: int) -> dict[str, int]:
    return {f"x{number}": number for number in range(count)}


def _inputs(given: Any) -> dict[str, Any]:
    return {"model": "offline/embedding", "input": given, "dimensions": 1}


def _prediction(text: str) -> dict[str, Any]:
    return {"model": "offline/echo", "input": {"prompt": text}}


class Work:
    """The calls of Python and C that this thread makes, and the bytes that it writes as JSON."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = self.bytes = 0
        for name in WRITERS:
            monkeypatch.setattr(name, self._counting(pkgutil.resolve_name(name)))

    async def of(self, doing: Coroutine[Any, Any, httpx2.Response]) -> httpx2.Response:
        """What `doing` gives; from then on, its calls and bytes are known."""
        self.calls = self.bytes = 0
        sys.setprofile(self._note)
        try:
            return await doing
        finally:
            sys.setprofile(None)

    def _note(self, _: FrameType, event: str, __: Any) -> None:
        self.calls += event in {"call", "c_call"}

    def _counting(self, write: Callable[..., bytes]) -> Callable[..., bytes]:
        def counting(*given: Any, **options: Any) -> bytes:
            written = write(*given, **options)
            self.bytes += len(written)
            return written

        return counting


@pytest.fixture
async def roomy(start: Start, policy_dir: Path) -> Service:
    """A service that takes and logs long texts."""
    models = MODELS_TOML.replace("max_input_tokens = 2000", "max_input_tokens = 200_000")
    models = models.replace("max_output_tokens = 64", "max_output_tokens = 4096")
    (policy_dir / "models.toml").write_text(models, encoding="utf-8")
    return await start(log_content=True)


@pytest.mark.parametrize("name", BODIES)
async def test_no_body_costs_more_than_its_size(
    roomy: Service, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    client = roomy.client(await roomy.create_user())
    path, make = BODIES[name]
    work, sizes = Work(monkeypatch), (SIZE, 4 * SIZE)
    counts, written = [], []
    for size in (SIZE, *sizes):  # The first one fills caches.
        content = json.dumps(make(size), ensure_ascii=False).encode()
        headers = {**JSON, "Idempotency-Key": unique("key")}
        response = await work.of(client.post(path, content=content, headers=headers))
        counts.append(work.calls)
        written.append(work.bytes / (len(content) + len(response.content) + ROOM))
    assert counts[2] <= 4 * counts[1]
    assert max(written) <= PASSES
