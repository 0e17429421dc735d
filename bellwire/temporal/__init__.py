"""How Bellwire talks to Temporal: connection, payload encryption and publications."""
