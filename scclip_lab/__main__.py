"""`python -m scclip_lab` runs the commands of the experiments."""

import sys

from scclip_lab.cli import main

# Worker processes import this file under another name, and must not run a command.
if __name__ == "__main__":
    sys.exit(main())
