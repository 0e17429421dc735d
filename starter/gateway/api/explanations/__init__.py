"""Why events matched subscriptions or not, and what a subscription would match."""
