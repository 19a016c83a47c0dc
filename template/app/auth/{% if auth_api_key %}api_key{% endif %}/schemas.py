"""Bodies of `/v1/keys`."""

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from app.api import Name, RequestBody, Time
from app.auth.principal import Scope


class KeyRequest(RequestBody):
    name: Name
    scopes: list[Scope] = Field(default=[Scope.GENERATE, Scope.READ], min_length=1)
    expires_at: AwareDatetime | None = None


class ApiKey(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str
    name: str
    scopes: list[Scope]
    created_at: Time
    expires_at: Time | None
    last_used_at: Time | None


class CreatedKey(ApiKey):
    """A key with its secret, which is shown this once."""

    secret: str = ""
