"""`python -m minift`, the same as `minift`."""

import sys

from minift.cli import main

sys.exit(main())
