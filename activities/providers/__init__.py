"""What channels share that call the HTTP API of a provider: accounts, tokens, calls, and what an answer means."""
