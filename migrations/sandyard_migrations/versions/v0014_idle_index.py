"""The timers find what is idle in an index alone, however many sandboxes run."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.drop_index("ix_sandboxes_observed_desired", "sandboxes")
    op.create_index(
        "ix_sandboxes_observed_desired_idle",
        "sandboxes",
        ["observed", "desired", "last_activity_at", "auto_stop_minutes", "auto_pause_minutes"],
    )


def downgrade() -> None:
    """Take back."""
    op.drop_index("ix_sandboxes_observed_desired_idle", "sandboxes")
    op.create_index("ix_sandboxes_observed_desired", "sandboxes", ["observed", "desired"])
