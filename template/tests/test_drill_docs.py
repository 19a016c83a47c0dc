"""docs/billing.md and the drill speak of the same promises."""

import re

from drill.guarantees import Finding
from drill.order import GUARANTEES
from drill.report import line
from tests.support import ROOT

SHOWN = re.compile(r"Shown by: \*(.+?)\*")


def test_every_sentence_names_a_promise_that_the_drill_looks_at_and_none_is_left_out() -> None:
    page = (ROOT / "docs/billing.md").read_text(encoding="utf-8")
    assert sorted(SHOWN.findall(page)) == sorted(promise.text for promise in GUARANTEES)


def test_a_row_of_the_table_holds_every_word_in_its_column() -> None:
    finding = Finding("It is kept " * 9, "as it says", "as it says " * 5, "holds")
    rows = [row.split("  ") for row in line(finding).splitlines()]
    words = " ".join(part.strip() for row in rows for part in row).split()
    assert sorted(words) == sorted(" ".join(finding).split())
