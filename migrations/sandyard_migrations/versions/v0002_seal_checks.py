"""A sealed text by which a start knows whether it has the key that the database was written with."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "seal_checks",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_seal_checks"),
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("seal_checks")
