"""Where the soup of a profile acts; of those before, on every token."""

import sqlalchemy as sa
from alembic import op

__all__ = ["revision", "upgrade"]

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column."""
    op.add_column("profiles", sa.Column("mode", sa.String(16), nullable=False, server_default="full"))
