"""A stand-in for Supabase Auth, with the shapes of its answers and tokens.

https://supabase.com/docs/guides/auth/jwt-fields
"""

import datetime as dt
import json
import uuid
from typing import Any

import jwt
from aiohttp import web
from aiohttp.test_utils import RawTestServer
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from gateway.db.tables import utc_now

PUBLISHABLE_KEY = "sb_publishable_for-tests"
MAKERS: dict[str, Any] = {
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


class Signing:
    """A key of Supabase."""

    def __init__(self, algorithm: str = "ES256") -> None:
        self.algorithm = algorithm
        self.key = MAKERS[algorithm]()
        self.key_id = str(uuid.uuid4())

    @property
    def published(self) -> dict[str, Any]:
        """The public key, as the key set has it."""
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        public = json.loads(algorithm.to_jwk(self.key.public_key()))
        more = {"alg": self.algorithm, "kid": self.key_id, "use": "sig", "ext": True}
        return {**public, **more, "key_ops": ["verify"]}


class SupabaseStandIn:
    """Its keys, its accounts with their passwords, and how often its keys were read."""

    def __init__(self) -> None:
        self.keys = [Signing()]
        self.passwords: dict[str, str] = {}
        self.read = 0
        self.is_down = False
        self.asked: list[dict[str, Any]] = []
        self._server = RawTestServer(self._answer)

    async def __aenter__(self) -> "SupabaseStandIn":
        await self._server.start_server()
        self.url = str(self._server.make_url("")).rstrip("/")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()

    def claims(self, account: str, **changed: Any) -> dict[str, Any]:
        """The claims of an account's token; None removes one."""
        now = utc_now()
        claims = {
            "iss": f"{self.url}/auth/v1",
            "sub": subject_of(account),
            "aud": "authenticated",
            "exp": int((now + dt.timedelta(hours=1)).timestamp()),
            "iat": int(now.timestamp()),
            "email": account,
            "phone": "",
            "app_metadata": {"provider": "email", "providers": ["email"]},
            "user_metadata": {"email_verified": True},
            "role": "authenticated",
            "aal": "aal1",
            "amr": [{"method": "password", "timestamp": int(now.timestamp())}],
            "session_id": str(uuid.uuid4()),
            "is_anonymous": False,
        }
        return {name: value for name, value in {**claims, **changed}.items() if value is not None}

    def token(self, account: str, signing: Signing | None = None, **changed: Any) -> str:
        """A token of an account; `role_here` is the role in its `app_metadata`."""
        here = changed.pop("role_here", None)
        if here:
            changed["app_metadata"] = {"provider": "email", "providers": ["email"], "role": here}
        signing = signing or self.keys[0]
        headers = {"kid": signing.key_id}
        claims = self.claims(account, **changed)
        return jwt.encode(claims, signing.key, signing.algorithm, headers=headers)

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        if self.is_down:
            return web.Response(status=503, text="upstream connect error")
        if request.path == "/auth/v1/.well-known/jwks.json":
            self.read += 1
            return web.json_response({"keys": [key.published for key in self.keys]})
        if request.path == "/auth/v1/token" and request.headers["apikey"] == PUBLISHABLE_KEY:
            return self._log_in(await request.json())
        return web.json_response({"message": "No API key found in request"}, status=401)

    def _log_in(self, given: dict[str, str]) -> web.Response:
        self.asked.append(given)
        email = given["email"]
        if self.passwords.get(email) != given["password"]:
            wrong = {"error_code": "invalid_credentials", "msg": "Invalid login credentials"}
            return web.json_response({"code": 400, **wrong}, status=400)
        user = {"id": subject_of(email), "aud": "authenticated", "email": email}
        return web.json_response(
            {
                "access_token": self.token(email),
                "token_type": "bearer",
                "expires_in": 3600,
                "expires_at": self.claims(email)["exp"],
                "refresh_token": "v4qcnqz7pbrv",
                "user": user,
            }
        )


def subject_of(email: str) -> str:
    """The subject of an account, which stays the same."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, email))
