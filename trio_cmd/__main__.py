"""``python -m trio_cmd``."""

import sys

from trio_cmd.cli import main

if __name__ == "__main__":
    sys.exit(main())
