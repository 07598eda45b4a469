"""What profiles learn: evidence of wants, questions that were asked, and the weights that follow; gone with the profile."""

import sqlalchemy as sa
from alembic import op

__all__ = ["revision", "upgrade"]

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "learning",
        *_of_profile(),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("frozen", sa.Boolean, nullable=False),
        sa.Column("listens", sa.Boolean, nullable=False),
        sa.Column("most", sa.JSON, nullable=False),
        sa.Column("weights", sa.JSON, nullable=False),
        sa.Column("because", sa.JSON, nullable=False),
        sa.Column("basis", sa.String(64), nullable=False),
        _gone_with_it(),
    )
    op.create_table(
        "evidence",
        *_of_profile(),
        sa.Column("id", sa.String(63), primary_key=True),
        sa.Column("source", sa.String(63), nullable=False),
        sa.Column("signal", sa.JSON, nullable=False),
        sa.Column("traits", sa.JSON, nullable=False),
        sa.Column("adapters", sa.String(71), nullable=False),
        sa.Column("base", sa.String(71), nullable=False),
        sa.Column("request", sa.String(40), nullable=False),
        sa.Column("received", sa.BigInteger, nullable=False),
        _gone_with_it(),
    )
    op.create_table(
        "questions",
        *_of_profile(),
        sa.Column("id", sa.String(63), primary_key=True),
        sa.Column("answers", sa.JSON, nullable=False),
        sa.Column("traits", sa.JSON, nullable=False),
        sa.Column("topic", sa.String(63)),
        sa.Column("asked", sa.BigInteger, nullable=False),
        _gone_with_it(),
    )


def _of_profile() -> list["sa.Column[str]"]:
    return [
        sa.Column("tenant", sa.String(63), primary_key=True),
        sa.Column("profile", sa.String(32), primary_key=True),
    ]


def _gone_with_it() -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["tenant", "profile"], ["profiles.tenant", "profiles.id"], ondelete="CASCADE")
