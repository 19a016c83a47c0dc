"""Who may do what under `/v1/admin/…`."""

from typing import Annotated

from fastapi import Depends, Request

from app.dependencies import Caller
from gateway.accounts.audit import Actor
from gateway.accounts.principals import Role, Scope
from gateway.errors import Forbidden


async def reads_everything(caller: Caller) -> None:
    """Pass auditors, and administrators with the scope `admin`."""
    caller.require(Scope.READ if caller.role is Role.AUDITOR else Scope.ADMIN)
    if caller.role is Role.USER:
        raise Forbidden("Only administrators and auditors may read this.")


async def administrator(caller: Caller, request: Request) -> Actor:
    """The administrator who changes something, as the audit names them."""
    caller.require(Scope.ADMIN)
    if caller.role is not Role.ADMIN:
        raise Forbidden("Only administrators may change this.")
    return Actor(caller.user_id, request.state.request_id)


Administrator = Annotated[Actor, Depends(administrator)]
