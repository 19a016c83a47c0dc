"""Expand, then contract: no migration removes what the previous version uses."""

from pathlib import Path

import pytest

from gateway.db import lines
from scripts.check_migrations import main, problems

HEAD = '"""Something."""\n\nfrom alembic import op\n\n'
REASON = 'CONTRACT = "users.nickname: v1.4.0 was the last version that read it"\n\n'

REFUSED = {
    "drop table": 'op.drop_table("users")',
    "drop column": 'op.drop_column("users", "email")',
    "in a batch": 'with op.batch_alter_table("users") as t:\n        t.drop_column("email")',
    "rename table": 'op.rename_table("users", "people")',
    "rename column": 'op.alter_column("users", "email", new_column_name="mail")',
    "type": 'op.alter_column("users", "email", type_=sa.Text())',
    "nullability": 'op.alter_column("users", "email", nullable=False)',
    "required column": 'op.add_column("users", sa.Column("age", sa.Integer, nullable=False))',
    "unique": 'op.create_unique_constraint("uq", "users", ["email"])',
    "unique index": 'op.create_index("ix", "users", ["email"], unique=True)',
    "SQL": 'op.execute("ALTER TABLE users DROP COLUMN email")',
    "SQL that is not written out": "op.execute(statement)",
    "in a function": "_away()\n\n\ndef _away() -> None:\n    op.drop_table('users')",
}
TAKEN = {
    "a table": 'op.create_table("notes", sa.Column("id", sa.Text, nullable=False))',
    "a column": 'op.add_column("users", sa.Column("age", sa.Integer))',
    "a filled one": (
        'op.add_column("users", sa.Column("age", sa.Integer, nullable=False, server_default="0"))'
    ),
    "an index": 'op.create_index("ix", "users", ["email"])',
    "looser": 'op.alter_column("users", "email", nullable=True)',
    "a new table's constraint": (
        'op.create_table("notes")\n    op.create_unique_constraint("uq", "notes", ["id"])'
    ),
    "a backfill": 'op.execute("UPDATE users SET age = 0")',
}


def _migration(upgrade: str, before: str = "") -> str:
    downgrade = '\n\n\ndef downgrade() -> None:\n    op.drop_table("users")\n'
    return f"{HEAD}{before}def upgrade() -> None:\n    {upgrade}{downgrade}"


def test_those_that_are_there_only_add() -> None:
    assert {lines.BASE, "0001"} <= lines.known().keys()
    assert main() == 0


def test_one_that_is_in_no_line_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stray = tmp_path / lines.OWN / "notes.py"
    stray.parent.mkdir(parents=True)
    stray.write_text('revision = "notes"\ndown_revision = "0001"\n', encoding="utf-8")
    monkeypatch.setattr(lines, "PROJECT", tmp_path)
    assert main() == 1
    assert "the migration notes is not in the line" in "".join(capsys.readouterr())


@pytest.mark.parametrize("step", REFUSED.values(), ids=REFUSED)
def test_one_that_takes_away_is_refused(step: str) -> None:
    (problem,) = problems(_migration(step))
    assert "Old code could not live with it" in problem


@pytest.mark.parametrize("step", TAKEN.values(), ids=TAKEN)
def test_one_that_adds_is_taken(step: str) -> None:
    assert problems(_migration(step)) == []


@pytest.mark.parametrize("step", REFUSED.values(), ids=REFUSED)
def test_one_that_says_why_it_takes_away_is_taken(step: str) -> None:
    assert problems(_migration(step, REASON)) == []


def test_the_reason_has_to_be_one() -> None:
    assert problems(_migration('op.drop_table("users")', 'CONTRACT = ""\n\n'))
    assert problems(_migration('op.drop_table("users")', "CONTRACT = True\n\n"))


def test_a_reason_without_need_is_refused() -> None:
    assert problems(_migration('op.create_table("notes")', REASON))
