"""Routes and schemas of `/v1/responses`."""
