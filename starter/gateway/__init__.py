"""The HTTP side: provider callbacks, unsubscribe pages, codec server."""
