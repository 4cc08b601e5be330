"""``python -m trio_cmd``."""

import sys

from trio_cmd.cli import main

sys.exit(main())
