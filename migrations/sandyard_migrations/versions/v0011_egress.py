"""The way out of sandboxes: allow lists, and secrets that they use without seeing them."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Apply."""
    op.add_column("sandboxes", sa.Column("network_allow_list", sa.Text(), nullable=True))
    op.add_column("sandboxes", sa.Column("domain_allow_list", sa.Text(), nullable=True))
    op.add_column("sandboxes", sa.Column("secrets", sa.JSON(), nullable=False, server_default="{}"))
    op.create_table(
        "secrets",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value_sealed", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("placeholder", sa.Text(), nullable=False),
        sa.Column("hosts", sa.JSON(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_secrets"),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name="fk_secrets_organization_id_organizations"
        ),
        sa.UniqueConstraint("organization_id", "name", name="uq_secrets_organization_id_name"),
        sa.UniqueConstraint("placeholder", name="uq_secrets_placeholder"),
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("secrets")
    for column in ("network_allow_list", "domain_allow_list", "secrets"):
        op.drop_column("sandboxes", column)
