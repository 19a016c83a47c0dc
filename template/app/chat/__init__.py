"""Routes and schemas of `/v1/chat/completions`."""
