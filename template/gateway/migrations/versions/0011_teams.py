"""Teams, whose members share a plan, and what counts against the team."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

IN_TEAM = sa.text("team_id IS NOT NULL")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "teams",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("plan", sa.String(100), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_teams"),
    )
    op.create_table(
        "team_invitations",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("team_id", sa.String(40), nullable=False),
        sa.Column("email", sa.String(320), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_team_invitations"),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name="fk_team_invitations_team_id_teams"
        ),
        sa.UniqueConstraint("team_id", "email", name="uq_team_invitations_team_id_email"),
    )
    op.create_index("ix_team_invitations_email", "team_invitations", ["email"])
    op.add_column("users", sa.Column("team_id", sa.String(40)))
    op.add_column("users", sa.Column("team_role", sa.String(20)))
    op.create_index("ix_users_team_id", "users", ["team_id"])
    op.add_column("predictions", sa.Column("team_id", sa.String(40)))
    op.create_index(
        "ix_predictions_team_id_id",
        "predictions",
        ["team_id", "id"],
        postgresql_where=IN_TEAM,
        sqlite_where=IN_TEAM,
    )
    op.add_column("attempts", sa.Column("team_id", sa.String(40)))


def downgrade() -> None:
    op.drop_column("attempts", "team_id")
    op.drop_index("ix_predictions_team_id_id", "predictions")
    op.drop_column("predictions", "team_id")
    op.drop_index("ix_users_team_id", "users")
    op.drop_column("users", "team_role")
    op.drop_column("users", "team_id")
    op.drop_table("team_invitations")
    op.drop_table("teams")
