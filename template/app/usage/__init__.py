"""Routes and schemas of `/v1/usage` and `/v1/me`."""
