"""Sign-in with the account of a provider: GitHub, Google or an OpenID Connect issuer."""
