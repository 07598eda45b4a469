"""Alembic's entry: run the migrations over the connection that `open_database` holds."""

from alembic import context

from soupmix.serve.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
