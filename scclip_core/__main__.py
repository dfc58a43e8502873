"""`python -m scclip_core` is the command `scclip`."""

import sys

from scclip_core.cli import main

sys.exit(main())
