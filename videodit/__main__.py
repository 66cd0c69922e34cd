"""`python -m videodit` is `videodit`."""

import sys

from videodit.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
