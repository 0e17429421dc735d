"""The `bellwire` command: publish, subscribe and follow deliveries over the HTTP API. It needs `pip install bellwire[cli]`."""

import sys

__all__ = ["main"]


def main() -> None:
    """The entry point of the command."""
    try:
        from bellwire.cli.app import run
    except ModuleNotFoundError as error:
        sys.exit(f"error: {error.name} is not installed; pip install 'bellwire[cli]'")
    sys.exit(run(sys.argv[1:]))
