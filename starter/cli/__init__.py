"""The command line: `python -m starter COMMAND`."""
