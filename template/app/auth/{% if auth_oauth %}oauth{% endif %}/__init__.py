"""OAuth: people sign in with GitHub, Google or an OpenID Connect issuer, programs have API keys."""

from app.auth.api_key import FIELDS as FIELDS
from app.auth.api_key import NO_CREDENTIALS as NO_CREDENTIALS
from app.auth.api_key import SCHEME as SCHEME
from app.auth.api_key import authorization as authorization
from app.auth.api_key import create_access as create_access
from app.auth.api_key import create_credential as create_credential
from app.auth.api_key.authenticator import ApiKeyAuthenticator
from app.auth.port import Button
from app.settings import Settings
from gateway.accounts.admission import parse_allowed
from gateway.accounts.api_keys import Keys
from gateway.accounts.identities import Identities
from gateway.accounts.sign_in.flow import Flow
from gateway.accounts.sign_in.github import GitHub
from gateway.accounts.sign_in.openid import GOOGLE_ISSUERS, OpenId
from gateway.accounts.sign_in.provider import Client, Provider
from gateway.accounts.sign_in.throttle import Throttle
from gateway.db.engine import Database
from gateway.idempotency.sealing import Sealer
from gateway.rate_limits.base import Limiter
from gateway.signing import Signer


class OAuthMethod(ApiKeyAuthenticator):
    """Programs send API keys; the other parts are for the routes of a browser's sign-in."""

    def __init__(self, keys: Keys, flow: Flow, identities: Identities, throttle: Throttle) -> None:
        super().__init__(keys)
        self.flow = flow
        self.identities = identities
        self.throttle = throttle


def buttons(settings: Settings) -> tuple[Button, ...]:
    """A button for each provider with a client id."""
    return tuple(Button(each.name, each.label) for each in open_providers(settings))


def open_authenticator(settings: Settings, database: Database, limiter: Limiter) -> OAuthMethod:
    keys = Keys(database, settings.project["name"])
    providers = {provider.name: provider for provider in open_providers(settings)}
    flow = Flow(Sealer("sign_in", *settings.gateway.secret_keys), providers)
    signer = Signer(settings.secret_key.get_secret_value())
    return OAuthMethod(keys, flow, Identities(database), Throttle(limiter, signer))


def open_providers(settings: Settings) -> list[Provider]:
    """The providers that the settings have a client of."""
    allowed = parse_allowed(settings.oauth_allowed)
    found: list[Provider] = []
    if settings.oauth_github_client_id:
        secret = settings.oauth_github_client_secret.get_secret_value()
        client = Client(settings.oauth_github_client_id, secret)
        found.append(GitHub(client, allowed.organisations))
    if settings.oauth_google_client_id:
        secret = settings.oauth_google_client_secret.get_secret_value()
        client = Client(settings.oauth_google_client_id, secret)
        found.append(OpenId("google", "Google", GOOGLE_ISSUERS, client, is_google=True))
    if settings.oauth_oidc_issuer:
        secret = settings.oauth_oidc_client_secret.get_secret_value()
        client = Client(settings.oauth_oidc_client_id, secret)
        issuer = settings.oauth_oidc_issuer
        label, is_google = issuer.partition("://")[2], issuer == GOOGLE_ISSUERS[0]
        found.append(OpenId("oidc", label, (issuer,), client, is_google=is_google))
    return found
