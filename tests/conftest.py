"""What all tests share: the support folder on the path, and a loop like the engine's."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "support"))
