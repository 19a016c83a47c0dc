"""The redactor: removes credentials and addresses, and nothing else."""

import json
import logging
import string
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.settings import Settings
from gateway.telemetry.logging import JsonFormatter, TextFormatter
from gateway.telemetry.redaction import MARK, make_redactor

redact = make_redactor([])
TOKEN = st.text(string.ascii_letters + string.digits, min_size=24, max_size=48)
AROUND = st.text(st.characters(codec="utf-8"), max_size=30)

CREDENTIALS = [
    "acme-chat_live_01jd0000000000000000000000_" + "a1B2" * 12,
    "sk-proj-abcdefghijklmnop1234",
    "hf_abcdefghijklmnopqrstuv",
    "r8_abcdefghijklmnopqrstuv",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1c3IifQ.c2lnbmF0dXJl",  # pragma: allowlist secret
    "Bearer abcdef123456",
    "basic amFuZTpzZWNyZXQ=",
    "jane.doe+test@mail.example.com",
]


@pytest.mark.parametrize("credential", CREDENTIALS)
@pytest.mark.parametrize("text", ["{}", "see {}, please", "'{}'", "a\n{}\tb", "key={}", "({})"])
def test_texts_that_look_like_credentials_are_redacted(credential: str, text: str) -> None:
    assert redact(text.format(credential)) == text.format(MARK)


@pytest.mark.parametrize("credential", CREDENTIALS)
@pytest.mark.parametrize("before", ["", "\n", "\t", '"', "\\", "ü ", "://x:y "])
def test_a_log_line_stays_json_without_it(credential: str, before: str) -> None:
    fields = {"url": "https://host", "nested": {credential: [before + credential, {"n": 1}]}}
    event = json.loads(_format(JsonFormatter(redact), before + credential, fields))
    assert event["message"].endswith(MARK)
    assert event["url"] == "https://host"
    assert list(event["nested"]) == [MARK]
    text, rest = event["nested"][MARK]
    assert text.endswith(MARK)
    assert rest == {"n": 1}
    assert credential not in json.dumps(event, ensure_ascii=False)


def test_the_line_for_a_person_is_redacted_too() -> None:
    message = "see\nsk-proj-abcdefghijklmnop1234"
    line = _format(TextFormatter(redact), message, {"to": "a@b.example"})
    assert "sk-proj" not in line
    assert "a@b.example" not in line
    assert line.count(MARK) == 2


def test_a_password_in_an_address_is_taken_out_and_its_host_stays() -> None:
    text = redact("cannot reach https://jane:p4ss:word@db.example:5432/app")
    assert "p4ss" not in text
    assert "word" not in text
    assert text.endswith("@db.example:5432/app")


@pytest.mark.parametrize(
    "text",
    [
        "POST /v1/chat/completions 200",
        "pred_01jd0000000000000000000000",
        "basic facts",
        "risk-free",
        "@decorator",
        "http://127.0.0.1:8000/docs",
        "12:30:00 a:b",
    ],
)
def test_other_text_stays(text: str) -> None:
    assert redact(text) == text


@given(before=AROUND, secret=TOKEN, after=AROUND)
def test_a_known_secret_is_taken_out_wherever_it_stands(
    before: str, secret: str, after: str
) -> None:
    assert secret not in make_redactor([secret])(before + secret + after)


@given(secrets=st.lists(TOKEN, min_size=1, max_size=4, unique=True), between=AROUND)
def test_all_secrets_of_the_settings_are_known(secrets: list[str], between: str) -> None:
    names = ("secret_key", "secret_key_previous", "metrics_token", "database_url")
    values: dict[str, Any] = dict(zip(names, secrets, strict=False))
    if "database_url" in values:
        values["database_url"] = f"scheme://user:{values['database_url']}@host/name"
    settings = Settings(_env_file=None, **values)
    text = make_redactor(settings.secret_values())(between.join(secrets))
    assert not any(secret in text for secret in secrets)


@pytest.mark.parametrize("secret", ['a"b\\c/d$e.f*', "ümläut-ñ-秘密", "a.c+e?(g)[i]"])
def test_secrets_are_no_patterns_and_survive_no_encoding(secret: str) -> None:
    formatter = JsonFormatter(make_redactor([secret]))
    event = json.loads(_format(formatter, f"it is {secret}!", {"again": [secret]}))
    assert event["message"] == f"it is {MARK}!"
    assert event["again"] == [MARK]


def _format(formatter: logging.Formatter, message: str, fields: Mapping[str, object]) -> str:
    record = logging.LogRecord("app", logging.INFO, __file__, 1, message, (), None)
    vars(record)["fields"] = fields
    return formatter.format(record)
