"""Routes and schemas of `/v1/admin/…`: for the owner."""
