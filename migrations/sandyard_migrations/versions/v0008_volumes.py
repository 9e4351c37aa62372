"""Volumes, and what sandboxes mount of them."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "volumes",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.Column("last_used_at", TIME, nullable=True),
        sa.Column("deleted_at", TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name="fk_volumes_organization_id_organizations"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_volumes"),
    )
    living = sa.text("deleted_at is null")
    op.create_index(
        "uq_volumes_organization_id_name_among_the_living",
        "volumes",
        ["organization_id", "name"],
        unique=True,
        sqlite_where=living,
        postgresql_where=living,
    )
    with op.batch_alter_table("sandboxes") as sandboxes:
        sandboxes.add_column(sa.Column("volumes", sa.JSON(), nullable=False, server_default="[]"))


def downgrade() -> None:
    """Take back."""
    with op.batch_alter_table("sandboxes") as sandboxes:
        sandboxes.drop_column("volumes")
    op.drop_table("volumes")
