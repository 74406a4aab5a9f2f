"""`python -m pipeline` is `fineclip`."""

import sys

from fineclip import main

if __name__ == "__main__":
    sys.exit(main())
