"""The first schema: organizations, users, keys, runners, sandboxes, their jobs, causes, build logs and sessions."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
WORD = sa.String(length=32)
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Apply."""
    _organizations()
    _runners()
    _sandboxes()
    _users()
    _api_keys()
    _build_log_chunks()
    _jobs()
    _sessions()
    _state_changes()
    _session_commands()


def downgrade() -> None:
    """Undo."""
    for table in (
        "session_commands",
        "state_changes",
        "sessions",
        "jobs",
        "build_log_chunks",
        "api_keys",
        "users",
        "sandboxes",
        "runners",
        "organizations",
    ):
        op.drop_table(table)


def _organizations() -> None:
    op.create_table(
        "organizations",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_organizations"),
        sa.UniqueConstraint("name", name="uq_organizations_name"),
    )


def _runners() -> None:
    op.create_table(
        "runners",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("runtime", sa.Text(), nullable=False),
        sa.Column("capabilities", sa.JSON(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("last_seen_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_runners"),
    )


def _sandboxes() -> None:
    op.create_table(
        "sandboxes",
        *_what_was_asked(),
        *_what_became_of_it(),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name="fk_sandboxes_organization_id_organizations"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_sandboxes"),
        sa.UniqueConstraint("preview_token_hash", name="uq_sandboxes_preview_token_hash"),
    )
    op.create_index("ix_sandboxes_observed_desired", "sandboxes", ["observed", "desired"])
    op.create_index(
        "ix_sandboxes_organization_id_last_activity_at", "sandboxes", ["organization_id", "last_activity_at", "id"]
    )
    op.create_index(
        "uq_sandboxes_name_among_the_living",
        "sandboxes",
        ["organization_id", "name"],
        unique=True,
        sqlite_where=sa.text("desired <> 'destroyed'"),
        postgresql_where=sa.text("desired <> 'destroyed'"),
    )


def _what_was_asked() -> list[sa.Column[Any]]:
    return [
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("runner_id", sa.Text(), nullable=True),
        sa.Column("snapshot", sa.Text(), nullable=True),
        sa.Column("image", sa.Text(), nullable=True),
        sa.Column("dockerfile", sa.Text(), nullable=True),
        sa.Column("user", sa.Text(), nullable=True),
        sa.Column("env", sa.JSON(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("public", sa.Boolean(), nullable=False),
        sa.Column("network_block_all", sa.Boolean(), nullable=False),
        sa.Column("cpu", sa.Integer(), nullable=False),
        sa.Column("gpu", sa.Integer(), nullable=False),
        sa.Column("memory_gib", sa.Integer(), nullable=False),
        sa.Column("disk_gib", sa.Integer(), nullable=False),
        sa.Column("auto_stop_minutes", sa.Integer(), nullable=False),
        sa.Column("auto_archive_minutes", sa.Integer(), nullable=False),
        sa.Column("auto_delete_minutes", sa.Integer(), nullable=False),
        sa.Column("auto_destroy_at", TIME, nullable=True),
    ]


def _what_became_of_it() -> list[sa.Column[Any]]:
    return [
        sa.Column("observed", WORD, nullable=False),
        sa.Column("desired", WORD, nullable=False),
        sa.Column("progressed_at", TIME, nullable=False),
        sa.Column("error_reason", sa.Text(), nullable=True),
        sa.Column("recoverable", sa.Boolean(), nullable=False),
        sa.Column("daemon_version", sa.Text(), nullable=True),
        sa.Column("preview_token_hash", sa.Text(), nullable=False),
        sa.Column("preview_token_sealed", sa.Text(), nullable=False),
        sa.Column("door_secret_sealed", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.Column("last_activity_at", TIME, nullable=False),
        sa.Column("destroyed_at", TIME, nullable=True),
    ]


def _users() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name="fk_users_organization_id_organizations"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
    )


def _api_keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("suffix", sa.Text(), nullable=False),
        sa.Column("permissions", sa.JSON(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("last_used_at", TIME, nullable=True),
        sa.Column("expires_at", TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name="fk_api_keys_organization_id_organizations"
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_api_keys_user_id_users"),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("hash", name="uq_api_keys_hash"),
        sa.UniqueConstraint("user_id", "name", name="uq_api_keys_user_id_name"),
    )


def _build_log_chunks() -> None:
    op.create_table(
        "build_log_chunks",
        sa.Column("number", NUMBER, autoincrement=True, nullable=False),
        sa.Column("sandbox_id", sa.Text(), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["sandbox_id"], ["sandboxes.id"], name="fk_build_log_chunks_sandbox_id_sandboxes", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("number", name="pk_build_log_chunks"),
    )
    op.create_index("ix_build_log_chunks_sandbox_id_number", "build_log_chunks", ["sandbox_id", "number"], unique=False)


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("number", NUMBER, autoincrement=True, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("sandbox_id", sa.Text(), nullable=False),
        sa.Column("runner_id", sa.Text(), nullable=True),
        sa.Column("kind", WORD, nullable=False),
        sa.Column("state", WORD, nullable=False),
        sa.Column("force", sa.Boolean(), nullable=False),
        sa.Column("lease", sa.Text(), nullable=True),
        sa.Column("lease_until", TIME, nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("finished_at", TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["sandbox_id"], ["sandboxes.id"], name="fk_jobs_sandbox_id_sandboxes", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("number", name="pk_jobs"),
        sa.UniqueConstraint("id", name="uq_jobs_id"),
    )
    op.create_index("ix_jobs_state_runner_id", "jobs", ["state", "runner_id"], unique=False)
    op.create_index(
        "uq_jobs_one_open_for_each_sandbox",
        "jobs",
        ["sandbox_id"],
        unique=True,
        sqlite_where=sa.text("state = 'open'"),
        postgresql_where=sa.text("state = 'open'"),
    )


def _sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("sandbox_id", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("ended_at", TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["sandbox_id"], ["sandboxes.id"], name="fk_sessions_sandbox_id_sandboxes", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("sandbox_id", "session_id", name="pk_sessions"),
    )


def _state_changes() -> None:
    op.create_table(
        "state_changes",
        sa.Column("number", NUMBER, autoincrement=True, nullable=False),
        sa.Column("sandbox_id", sa.Text(), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("observed", WORD, nullable=False),
        sa.Column("desired", WORD, nullable=False),
        sa.Column("shown", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["sandbox_id"], ["sandboxes.id"], name="fk_state_changes_sandbox_id_sandboxes", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("number", name="pk_state_changes"),
    )
    op.create_index("ix_state_changes_sandbox_id_number", "state_changes", ["sandbox_id", "number"], unique=False)


def _session_commands() -> None:
    op.create_table(
        "session_commands",
        sa.Column("sandbox_id", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("command_id", sa.Text(), nullable=False),
        sa.Column("command", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("started_at", TIME, nullable=True),
        sa.Column("finished_at", TIME, nullable=True),
        sa.Column("exit_code", sa.BigInteger(), nullable=True),
        sa.Column("log_size", sa.BigInteger(), nullable=False),
        sa.Column("last_lines", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["sandbox_id", "session_id"],
            ["sessions.sandbox_id", "sessions.session_id"],
            name="fk_session_commands_sandbox_id_session_id_sessions",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("sandbox_id", "session_id", "command_id", name="pk_session_commands"),
    )
