"""The loop that every channel shares: load, skip what is recorded, attempt, record."""
