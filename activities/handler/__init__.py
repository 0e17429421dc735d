"""Handlers: the steps of a delivery that need the registry. The functions run in services, with `bellwire.handlers`."""
