"""`python -m starter`."""

import sys

from starter.cli.main import main

sys.exit(main(sys.argv[1:]))
