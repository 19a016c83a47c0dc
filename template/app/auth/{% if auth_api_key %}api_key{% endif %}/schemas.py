"""Bodies of `/v1/keys`."""

from typing import Any

from pydantic import AwareDatetime, BaseModel, Field
from sqlalchemy import Row

from app.api import Name, RequestBody, Time
from app.auth.api_key.keys import NewKey
from app.auth.principal import Scope


class KeyRequest(RequestBody):
    name: Name
    scopes: list[Scope] = Field(default=[Scope.GENERATE, Scope.READ], min_length=1)
    expires_at: AwareDatetime | None = None


class ApiKey(BaseModel):
    id: str
    name: str
    scopes: list[Scope]
    created_at: Time
    expires_at: Time | None
    last_used_at: Time | None

    @classmethod
    def of(cls, row: Row[Any]) -> "ApiKey":
        return cls.model_validate(row, from_attributes=True)


class CreatedKey(ApiKey):
    """A key with its secret, which is shown this once."""

    secret: str

    @classmethod
    def of_new(cls, new: NewKey) -> "CreatedKey":
        return cls(**ApiKey.of(new.row).model_dump(), secret=new.secret)
