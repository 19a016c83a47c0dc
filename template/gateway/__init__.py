"""The engine: limits, budgets, circuit breakers, retries, idempotency and a ledger around models.

`README.md` describes its guarantees. The names below are its public interface. Each is loaded at
its first use, since some load many modules.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.accounts.principals import Principal, Role, Scope
    from gateway.config import GatewayConfig
    from gateway.engine import Engine, open_engine
    from gateway.errors import ServiceError, StartError
    from gateway.gateway import Gateway, Result, TextStream

_MODULES = {
    "Engine": "gateway.engine",
    "Gateway": "gateway.gateway",
    "GatewayConfig": "gateway.config",
    "Principal": "gateway.accounts.principals",
    "Result": "gateway.gateway",
    "Role": "gateway.accounts.principals",
    "Scope": "gateway.accounts.principals",
    "ServiceError": "gateway.errors",
    "StartError": "gateway.errors",
    "TextStream": "gateway.gateway",
    "open_engine": "gateway.engine",
}

__all__ = [
    "Engine",
    "Gateway",
    "GatewayConfig",
    "Principal",
    "Result",
    "Role",
    "Scope",
    "ServiceError",
    "StartError",
    "TextStream",
    "open_engine",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
