"""What the service stands on, as the drill takes it away and gives it back."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol


class Backend(Protocol):
    """A server or a file of the drill's own."""

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that the service needs for it."""

    def frozen(self) -> AbstractContextManager[None]:
        """Within the block it is there, but does not answer."""

    def close(self) -> None:
        """End it."""
