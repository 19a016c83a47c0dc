"""The public names of the engine: those that `gateway/README.md` explains."""

import re

import gateway
from tests.support import ROOT

README = (ROOT / "gateway/README.md").read_text(encoding="utf-8")


def test_the_readme_explains_each_public_name() -> None:
    section = README.partition("\n## Public names\n")[2].partition("\n## ")[0]
    explained = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert sorted(explained) == sorted(gateway.__all__)


def test_each_public_name_is_there() -> None:
    for name in gateway.__all__:
        assert getattr(gateway, name).__name__ == name
