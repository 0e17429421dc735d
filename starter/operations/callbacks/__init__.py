"""What providers call back with."""
