"""Parses addresses of servers in settings. No error repeats a part of an address."""

import ipaddress
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote

from gateway.errors import StartError

# As in SQLAlchemy, the password ends at the first @ after the user.
FORM = re.compile(
    r"(?P<scheme>[A-Za-z][\w+.-]*)://"
    r"(?:(?P<user>[^:/]*)(?::(?P<password>[^@]*))?@)?"
    r"(?:\[(?P<ip>[^\]/?@]*)\]|(?P<name>[^:/?\[\]]*))(?::(?P<port>[^/?]*))?"
    r"(?:/(?P<path>[^?]*))?(?:\?(?P<query>.*))?",
    re.ASCII | re.DOTALL,
)
LABEL = re.compile(r"\w(?:[\w-]{0,61}\w)?", re.ASCII)
MAX_HOST = 253
# Placeholders that a template, a shell or a host's panel has not filled in.
PLACEHOLDER = re.compile(r"[${}<>]")
URL_CHARACTERS = re.compile(r"""[^\s\x00-\x20\x7f"<>\\^`{|}]*""")
# An option's name that may be shown: a part of a password hardly looks like that.
OPTION = re.compile(r"[A-Za-z]\w{0,39}", re.ASCII)
SECRETS = ("password", "passwd", "secret", "token")
# In a list of origins or proxies, it stands for all.
EVERY = "*"
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@]+", re.IGNORECASE)
DEFAULT_PORTS = {"http": 80, "https": 443}
HIGHEST_PORT = 65_535
ENCODE = "percent-encode the special characters of user and password (@ is %40)"


class AddressError(ValueError):
    """An error in an address. The message contains no part of the address."""


class Address(NamedTuple):
    """The decoded parts of `scheme://user:password@host:port/path?query`."""

    scheme: str
    user: str | None
    password: str | None
    host: str
    port: int | None
    path: str
    options: list[tuple[str, str]]

    def require_server(self) -> None:
        """Raise `AddressError` unless the address names one host."""
        if not self.host:
            raise AddressError("it has no host")
        if not is_host(self.host):
            raise AddressError("its host is not a name or an IP address")

    def require_options(self, known: Collection[str]) -> None:
        """Raise `AddressError` for options that are not `known`."""
        unknown = sorted({name for name, _ in self.options} - set(known))
        if not unknown:
            return
        # The rest of a password after an unencoded & looks like an option.
        hidden = any(word in name.lower() for name, _ in self.options for word in SECRETS)
        named = not hidden and all(OPTION.fullmatch(name) for name in unknown)
        which = f": {', '.join(unknown)[:100]}" if named else ""
        raise AddressError(f"it has an unknown option{which}")

    def __str__(self) -> str:
        """The address with all parts encoded."""
        user = "".join(
            f"{separator}{quote(part, safe='')}"
            for separator, part in (("", self.user), (":", self.password))
            if part is not None
        )
        host = f"[{self.host}]" if ":" in self.host else self.host
        query = "&".join(f"{quote(name)}={quote(value, safe='')}" for name, value in self.options)
        return (
            f"{self.scheme}://{user}{'@' * (self.user is not None)}{host}"
            f"{f':{self.port}' if self.port else ''}/{quote(self.path)}{'?' * bool(query)}{query}"
        )


def parse(text: str) -> Address:
    """The parts of an address. Raises `AddressError`."""
    if not text:
        raise AddressError("it is not set")
    found = FORM.fullmatch(text)
    if not found:
        raise AddressError(f"it is not an address, or is not encoded: {ENCODE}")
    _refuse_ambiguous(found)
    user, password, path = (found[name] for name in ("user", "password", "path"))
    return Address(
        found["scheme"].lower(),
        None if user is None else unquote(user),
        None if password is None else unquote(password),
        found["ip"] or found["name"] or "",
        _port(found["port"]),
        unquote(path or ""),
        parse_qsl(found["query"] or "", keep_blank_values=True),
    )


@contextmanager
def explained(name: str, example: str) -> Iterator[None]:
    """Turn an `AddressError` about the variable `name` into a `StartError`."""
    try:
        yield
    except AddressError as error:
        raise StartError(f"{name}: {error}; use {example}") from error


def is_web_address(text: str, *, plain: bool = True) -> bool:
    """Whether `text` is an HTTP address. With `plain`, it has no user, query or fragment."""
    try:
        address = parse(text)
        address.require_server()
    except AddressError:
        return False
    has_more = address.user is not None or "?" in text or "#" in text
    is_written = URL_CHARACTERS.fullmatch(text) is not None
    return address.scheme in {"http", "https"} and is_written and not (plain and has_more)


def require_mail_server(text: str) -> None:
    """Raise `AddressError` unless `text` is as `smtp://user:password@host:587?from=a%40b.example`."""
    address = parse(text)
    if address.scheme not in {"smtp", "smtps"}:
        raise AddressError("it must be smtp:// or smtps://")
    address.require_server()
    address.require_options({"from"})


def origins(text: str) -> frozenset[str]:
    """The origins in a list with commas, in the format of browsers; `*` stands for all.

    Raises `ValueError` for what is not an origin.
    """
    given = {item.strip() for item in text.split(",")} - {""}
    if EVERY in given and len(given) > 1:
        raise ValueError("* stands for every origin: give it alone, without other origins")
    return frozenset(item if item == EVERY else _origin(item) for item in given)


def _origin(text: str) -> str:
    try:
        if not ORIGIN.fullmatch(text):
            raise AddressError
        address = parse(text)
        address.require_server()
    except AddressError as error:
        raise ValueError(
            "must be origins such as https://app.example.com, without a path, with commas between"
        ) from error
    scheme, host, port = address.scheme, address.host.lower(), address.port
    host = f"[{host}]" if ":" in host else host.encode("idna").decode()
    return f"{scheme}://{host}" + (f":{port}" if port and port != DEFAULT_PORTS.get(scheme) else "")


def require_networks(text: str) -> None:
    """Raise `ValueError` unless `text` is `*` or a list of IP addresses and networks."""
    try:
        for item in [] if text == EVERY else text.split(","):
            ipaddress.ip_network(item.strip())
    except ValueError as error:
        raise ValueError(
            "must be addresses and networks such as 10.0.0.1 and 10.0.0.0/8, with commas between, "
            "or * alone for all"
        ) from error


def is_ip(text: str) -> bool:
    """Whether `text` is an IPv4 or IPv6 address."""
    with suppress(ValueError):
        ipaddress.ip_address(text.partition("%")[0])
        return True
    return False


def is_host(text: str) -> bool:
    """Whether `text` is a valid host: a DNS name or an IP address."""
    if is_ip(text):
        return True
    with suppress(UnicodeError):
        name = text.encode("idna").decode().removesuffix(".")
        return len(name) <= MAX_HOST and all(map(LABEL.fullmatch, name.split(".")))
    return False


def passwords(text: str) -> Iterator[str]:
    """The possible passwords in an address, valid or not, both raw and decoded."""
    found = re.search(r"://[^:/@]*:(.*)@", text, re.DOTALL)
    given = [found[1], found[1].partition("@")[0]] if found else []
    given += [value for _, value in re.findall(r"[?&](\w*passw\w*)=([^&]*)", text)]
    for value in given:
        yield value
        yield unquote(value)


def _refuse_ambiguous(found: re.Match[str]) -> None:
    host, port, path = (found[name] or "" for name in ("name", "port", "path"))
    if "@" in host + port + (path if host else "") or (
        found["user"] is not None and "@" in path + (found["query"] or "")
    ):
        raise AddressError(f"it has an @ too many: {ENCODE}")
    if "${{" in found[0] or PLACEHOLDER.search(host + port + path):
        raise AddressError("a placeholder in it was not filled in")
    if found["ip"] is not None and not is_ip(found["ip"]):
        raise AddressError("the text in brackets is not an IPv6 address")
    if "," in host + port:
        raise AddressError("it names several hosts, and one is needed")


def _port(given: str | None) -> int | None:
    if given is None:
        return None
    if not re.fullmatch("[0-9]{1,5}", given) or not 1 <= int(given) <= HIGHEST_PORT:
        raise AddressError(f"its port is not a number from 1 to {HIGHEST_PORT}")
    return int(given)
