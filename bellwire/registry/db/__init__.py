"""The registry's database: engine, schema, tables, sealed columns, bulk statements."""
