"""`python -m starter`."""

import sys

from starter.cli import main

sys.exit(main(sys.argv[1:]))
