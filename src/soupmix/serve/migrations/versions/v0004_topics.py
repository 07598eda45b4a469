"""What is inferred for topics, beside what is inferred for everything else."""

import sqlalchemy as sa
from alembic import op

__all__ = ["revision", "upgrade"]

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add a column; nothing was inferred for topics before."""
    op.add_column("learning", sa.Column("topics", sa.JSON, nullable=False, server_default="{}"))
