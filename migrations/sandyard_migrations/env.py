"""What Alembic runs: the upgrade of the connection it was given. There is no offline form."""

from alembic import context
from sqlalchemy import Connection

from sandyard_api.tables import METADATA


def upgrade_online() -> None:
    """Run the wanted steps in one transaction, on the connection that `upgrade` passed."""
    connection: Connection = context.config.attributes["connection"]
    context.configure(
        connection=connection,
        target_metadata=METADATA,
        render_as_batch=connection.dialect.name == "sqlite",
        transactional_ddl=True,
    )
    context.run_migrations()


upgrade_online()
