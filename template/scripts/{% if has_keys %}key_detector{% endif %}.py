"""A plugin of detect-secrets: finds API keys of this kind of service, wherever they stand.

The pattern, for other scanners: a short name, `_live_`, 32 hexadecimal digits, `_` and 49 letters
and digits. The last six are a checksum.
"""

import re
from collections.abc import Sequence
from typing import ClassVar

from detect_secrets.plugins.base import RegexBasedDetector

KEY = re.compile(r"[a-z][a-z0-9_-]*_live_[0-9a-f]{32}_[0-9A-Za-z]{49}(?![0-9A-Za-z])")


class ApiKeyDetector(RegexBasedDetector):
    """Reports a key in any file: in quotes, in a header, in a comment."""

    secret_type = "API key of a service"  # noqa: S105 - the name of the kind
    denylist: ClassVar[Sequence[re.Pattern[str]]] = (KEY,)
