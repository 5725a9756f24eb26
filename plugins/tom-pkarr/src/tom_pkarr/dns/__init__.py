"""Finding nodes by DNS: `_iroh.<z32>.<origin>` TXT records."""

from __future__ import annotations
