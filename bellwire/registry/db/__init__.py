"""The database under the registry: engine, schema, tables, sealed columns, bulk statements."""
