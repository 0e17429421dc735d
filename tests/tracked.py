"""The files of the project, as git tracks them: what a run leaves in the checkout, such as a log, is not among them."""

import subprocess
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]


def tracked_files(*patterns: str) -> list[Path]:
    """The tracked files that match a pattern of git, such as `docs/**/*.md`; all without a pattern."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", *(f":(glob){pattern}" for pattern in patterns)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    found = [CHECKOUT / name for name in listed.stdout.split("\0") if name]
    return sorted(file for file in found if file.is_file())  # a file that was just deleted is still tracked
