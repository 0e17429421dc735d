"""Alembic's entry point: run the migrations on the connection that `schema.migrate` brings, in its transaction."""

from alembic import context

from bellwire.registry.db.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
