"""The catalog of event types: store, check, import and document them."""
