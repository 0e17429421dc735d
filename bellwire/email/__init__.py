"""Email: relay URLs, return paths, unsubscribe links and bounce reports, for workers and the starter."""
