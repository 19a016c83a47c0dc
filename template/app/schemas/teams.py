"""Bodies of `/v1/team…` and `/v1/admin/teams…`."""

from typing import Annotated

from pydantic import Field

from gateway.accounts.principals import TeamRole
from gateway.schemas.base import Name, Record, RequestBody, Time

AskedRole = Annotated[TeamRole, Field(strict=False)]


class Team(Record):
    """A team. `plan` is a team plan, whose limits and budgets the members share."""

    id: str
    name: str
    plan: str
    created_at: Time


class OwnTeam(Team):
    """The caller's team. `role` is the caller's role in the team."""

    role: TeamRole


class Member(Record):
    id: str
    email: str
    role: TeamRole = Field(validation_alias="team_role")


class TeamInvitationRequest(RequestBody):
    email: str


class TeamInvitation(Record):
    """An invitation, which ends at `expires_at`."""

    id: str
    email: str
    created_at: Time
    expires_at: Time


class ReceivedInvitation(Record):
    """An invitation to the caller."""

    id: str
    team_name: str
    expires_at: Time


class JoinRequest(RequestBody):
    invitation_id: str


class TeamRequest(RequestBody):
    name: Name
    plan: str


class TeamChange(RequestBody):
    """What is absent stays."""

    name: Name | None = None
    plan: str | None = None


class MemberRequest(RequestBody):
    user_id: str
    role: AskedRole = TeamRole.MEMBER
