"""Addresses in settings: every wrong form is an error that repeats no part of it."""

import pytest

from app import wiring
from gateway.addresses import AddressError, is_host, is_web_address, origins, parse, passwords
from tests.addresses import BROKEN, CANARY
from tests.fixtures.service import Run

# pragma: allowlist nextline secret
RIGHT = "scheme://jane:p4ss@host.example:6543/1?one=1"


def test_the_parts_of_an_address() -> None:
    # pragma: allowlist nextline secret
    assert parse("Scheme://j%40ne:p%3Ass@[::1]:6543/a%20b?one=%31&two=") == (
        *("scheme", "j@ne", "p:ss", "::1", 6543, "a b", [("one", "1"), ("two", "")]),
    )


@pytest.mark.parametrize(
    ("text", "again"),
    [
        (RIGHT, RIGHT),
        ("scheme://:p/a#s?s@host", "scheme://:p%2Fa%23s%3Fs@host/"),
        ("scheme://jane@[::1]/a b", "scheme://jane@[::1]/a%20b"),
        ("unix:///run/a.sock?db=1", "unix:///run/a.sock?db=1"),
    ],
)
def test_an_address_is_written_with_all_encoded(text: str, again: str) -> None:
    assert str(parse(text)) == again
    assert parse(again) == parse(text)


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_address_is_an_error(text: str) -> None:
    with pytest.raises(AddressError) as error:
        parse(text).require_server()
    assert CANARY not in str(error.value)


def test_unknown_options_are_named() -> None:
    address = parse("scheme://host/?one=1&two&ssl=x&three=3")
    with pytest.raises(AddressError, match=r"unknown option: three, two$"):
        address.require_options(["one", "ssl"])
    address.require_options(["one", "two", "three", "ssl"])


@pytest.mark.parametrize(
    "query",
    [
        f"password=a&{CANARY}=b",
        f"sslpassword=a&{CANARY}",
        f"x=1&{CANARY}-{CANARY}=b",
        f"{CANARY * 10}=b",
    ],
)
def test_a_possible_part_of_a_password_is_not_shown(query: str) -> None:
    with pytest.raises(AddressError) as error:
        parse(f"scheme://host/?{query}").require_options([])
    assert CANARY not in str(error.value)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        # pragma: allowlist nextline secret
        ("scheme://jane:p%40ss@host", {"p%40ss", "p@ss"}),
        ("scheme://:p@ss:word@host", {"p", "p@ss:word"}),
        ("scheme://host/?user=jane&password=p%20ss", {"p%20ss", "p ss"}),
        ("scheme://jane@host", set()),
        ("", set()),
    ],
)
def test_passwords_of_right_and_wrong_addresses_are_found(text: str, found: set[str]) -> None:
    assert set(passwords(text)) == found


@pytest.mark.parametrize(
    "host", ["a", "a.b.", "a_b", "127.0.0.1", "::1", "fe80::1%eth0", "bücher.de"]
)
def test_names_of_hosts(host: str) -> None:
    assert is_host(host)


@pytest.mark.parametrize(
    "text", ["http://a", "https://a.b:8443/v1", "HTTPS://A/", "http://[::1]:8000", "http://ü.de/x"]
)
def test_addresses_of_the_web(text: str) -> None:
    assert is_web_address(text)


@pytest.mark.parametrize(
    "text",
    [
        *("https://u:p@a/v1", "https://a/v1?key=x", "https://a/v1#x"),
        *(text.replace("scheme", "https") for text in BROKEN),
        *("ftp://a", "https://", "https:///v1", "https://a/{path}", "https://a/ b", "https://a\n"),
    ],
)
def test_invalid_web_addresses(text: str) -> None:
    assert not is_web_address(text)


def test_an_address_with_a_token_is_one_where_it_may() -> None:
    # pragma: allowlist nextline secret
    assert is_web_address("https://user:token@a/hook?token=x", plain=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", set()),
        (" , ", set()),
        ("*", {"*"}),
        (
            "https://a.example, http://localhost:5173,",
            {"https://a.example", "http://localhost:5173"},
        ),
        ("HTTPS://A.Example:443,http://b:80", {"https://a.example", "http://b"}),
        ("https://a:80", {"https://a:80"}),
        ("https://bücher.example", {"https://xn--bcher-kva.example"}),
        ("http://[::1]:5173", {"http://[::1]:5173"}),
        ("capacitor://localhost", {"capacitor://localhost"}),
    ],
)
def test_origins_as_browsers_send_them(text: str, expected: set[str]) -> None:
    assert origins(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *(
            "null",
            "a.example",
            "https://",
            "https://a/",
            "https://a/path",
            "https://a?x",
            "https://a#x",
        ),
        *("https://*.example", "https://u@a", "https://u:p@a", "https://a:port", "https://a b"),
        *("https://a:", "*,https://a", "https://a;https://b", "https://a https://b", "//a"),
    ],
)
def test_invalid_origins(text: str) -> None:
    with pytest.raises(ValueError, match=r"origins|\*"):
        origins(text)


@pytest.mark.parametrize("words", [("doctor",), ("users", "list"), ("migrate",)], ids=" ".join)
async def test_every_command_reports_a_wrong_database_address(
    run: Run, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    right = wiring.database.EXAMPLE
    wrong = [text.replace("scheme", right.partition(":")[0]) for text in BROKEN]
    for text in [*wrong, f"unknown://jane:{CANARY}@host/1", f"{right}?nonsense={CANARY}"]:
        monkeypatch.setenv("DATABASE_URL", text)
        result = await run(*words)
        assert (result.exit_code, type(result.exception)) == (1, SystemExit), text
        assert "DATABASE_URL: " in result.output
        assert ("nonsense" in text) == ("nonsense" in result.output)
        assert CANARY not in result.output
