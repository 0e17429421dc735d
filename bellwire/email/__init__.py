"""What publishers, workers and the starter share about email: relay URLs, return paths, unsubscribe links, bounce reports."""
