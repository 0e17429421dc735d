"""Where the application lies on disk: starter, worker.py, activities and examples run from a checkout or an image."""

import sys
from pathlib import Path

#: The folder that holds worker.py, activities and examples.
CHECKOUT = Path(__file__).resolve().parents[1]


def program(name: str) -> str:
    """The path of a program of this Python environment."""
    return str(Path(sys.executable).parent / name)
