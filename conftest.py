"""What holds for every test of this repository: see tests/leaks.py and tests.suites.py."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

# Last, so that an installed wheel of tom_connect wins over the source beside this file; for `import tests`.
if (root := str(Path(__file__).parent)) not in sys.path:
    sys.path.append(root)

pytest_plugins = ["tests.leaks", "tests.suites", "tom_connect.testing.pytest_plugin"]

# What endpoints keep between runs is not kept in the user's own place.
if "XDG_DATA_HOME" not in os.environ:
    os.environ["XDG_DATA_HOME"] = str(Path(tempfile.gettempdir()) / "tom-connect-tests")
