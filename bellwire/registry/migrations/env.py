"""Alembic's entry point. Runs the migrations on the connection of `schema.migrate`, in its transaction."""

from alembic import context

from bellwire.registry.db.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
