"""Commands of the catalog of event types."""
