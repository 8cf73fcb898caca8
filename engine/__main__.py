"""``python -m engine``: the same as the console script ``engine``."""

import sys

from engine.cli.main import main

sys.exit(main())
