"""GitHub and an OpenID Connect issuer on loopback, with their real shapes, for tests."""

import hashlib
import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT_ID, CLIENT_SECRET = "this-service", "s3cret: of/this service"
TOKEN = f"gho_{'a1' * 18}"


def github_email(email: str, **given: Any) -> dict[str, Any]:
    """An entry of GitHub's `GET /user/emails`."""
    return {"email": email, "primary": True, "verified": True, "visibility": "public", **given}


@dataclass
class StandIn:
    """What the providers know and answer; tests change it."""

    url: str = ""
    # The same server by another name: Google is another issuer than that of OpenID Connect.
    google: str = ""
    user: dict[str, Any] = field(default_factory=lambda: {"id": 583231, "login": "octocat"})
    emails: list[Any] = field(default_factory=lambda: [github_email("Octocat@example.com")])
    organisations: dict[str, str] = field(default_factory=dict)
    # What differs in the id_token; None leaves a claim out.
    claims: dict[str, Any] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)
    user_info: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "first"}))
    # The key that signs, if it is not the published one.
    signer: Any = None
    # Makes another token of a right one.
    forge: Callable[[str], str] = str
    token_status: int = 200
    # An answer instead of the token.
    token_answer: Any = None
    asked: list[dict[str, str]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def id_token(self, nonce: str, issuer: str) -> str:
        """A signed token, as the issuer would answer for `nonce`."""
        now = int(time.time())
        claims = {
            "iss": issuer,
            "aud": CLIENT_ID,
            "sub": "110169484474386276334",
            "email": "jane@example.com",
            "email_verified": True,
            "nonce": nonce,
            "iat": now,
            "exp": now + 3600,
            # The domain of a Google Workspace.
            "hd": "example.com" if issuer == self.google else None,
            **self.claims,
        }
        given = {name: value for name, value in claims.items() if value is not None}
        signer = self.signer or self.key
        header = {"alg": "RS256", "kid": "first", "typ": "JWT", **self.header}
        return self.forge(jwt.encode(header, given, signer))


def make_app(stand_in: StandIn) -> FastAPI:
    """The servers of `stand_in`."""
    app = FastAPI(openapi_url=None)

    @app.middleware("http")
    async def note(request: Request, call_next: Any) -> Response:
        stand_in.requests.append(request.url.path)
        answer: Response = await call_next(request)
        return answer

    @app.get("/login/oauth/authorize")
    @app.get("/authorize")
    async def authorize(request: Request) -> Response:
        asked = dict(request.query_params)
        stand_in.asked.append(asked)
        query = urlencode({"code": f"code{len(stand_in.asked) - 1}", "state": asked["state"]})
        return RedirectResponse(f"{asked['redirect_uri']}?{query}", 302)

    @app.post("/login/oauth/access_token")
    @app.post("/token")
    async def token(request: Request) -> Response:
        fields = dict(parse_qsl((await request.body()).decode()))
        if stand_in.token_answer is not None:
            return JSONResponse(stand_in.token_answer, stand_in.token_status)
        asked = stand_in.asked[int(fields["code"].removeprefix("code"))]
        if not _is_client(request, fields) or not _fits(fields, asked):
            return JSONResponse({"error": "bad_verification_code"})  # GitHub's status is 200
        answer = {"access_token": TOKEN, "token_type": "bearer", "scope": asked["scope"]}
        if "openid" in asked["scope"]:
            answer["id_token"] = stand_in.id_token(asked["nonce"], _issuer(request))
        return JSONResponse(answer)

    @app.get("/user")
    @app.get("/user/emails")
    @app.get("/userinfo")
    async def account(request: Request) -> Response:
        assert request.headers["authorization"] == f"Bearer {TOKEN}"
        known = {"/user": stand_in.user, "/userinfo": stand_in.user_info}
        return JSONResponse(known.get(request.url.path, stand_in.emails))

    @app.get("/user/memberships/orgs/{name}")
    async def membership(name: str) -> Response:
        if name not in stand_in.organisations:
            return JSONResponse({"message": "Not Found"}, 404)
        return JSONResponse({"state": stand_in.organisations[name], "role": "member"})

    @app.get("/.well-known/openid-configuration")
    async def configuration(request: Request) -> Response:
        issuer = _issuer(request)
        names = ("authorize", "token", "jwks", "userinfo")
        ends = ("authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint")
        own = {end: f"{issuer}/{name}" for end, name in zip(ends, names, strict=True)}
        return JSONResponse({"issuer": issuer, **own, **stand_in.metadata})

    @app.get("/jwks")
    async def jwks() -> Response:
        return JSONResponse({"keys": [stand_in.key.as_dict(private=False)]})

    return app


def _issuer(request: Request) -> str:
    return str(request.base_url).rstrip("/")


def _is_client(request: Request, fields: dict[str, str]) -> bool:
    header = request.headers.get("authorization", "")
    if header:  # RFC 6749: both parts are encoded as in a form
        name, _, secret = b64decode(header.removeprefix("Basic ")).decode().partition(":")
        return (unquote(name), unquote(secret)) == (CLIENT_ID, CLIENT_SECRET)
    return (fields.get("client_id"), fields.get("client_secret")) == (CLIENT_ID, CLIENT_SECRET)


def _fits(fields: dict[str, str], asked: dict[str, str]) -> bool:
    """Whether the verifier is that of the challenge, and the address is the same."""
    digest = hashlib.sha256(fields["code_verifier"].encode()).digest()
    challenge = urlsafe_b64encode(digest).decode().rstrip("=")
    is_right = (challenge, "S256") == (asked["code_challenge"], asked["code_challenge_method"])
    return is_right and fields["redirect_uri"] == asked["redirect_uri"]


def query_of(address: str) -> dict[str, str]:
    """The query of an address."""
    return dict(parse_qsl(urlsplit(address).query))
