"""What the test bench keeps: the virtual clock, by name and value."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "bench_states",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_bench_states"),
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("bench_states")
