"""The Pythons of this machine, as uv finds them."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from pathlib import Path

UV = shutil.which("uv")
_TIMEOUT = 60.0  # seconds; it takes some 20 ms


@functools.cache
def found(version: str) -> Path | None:
    """The path of a system's Python of a version such as `3.13`, if there is one; without uv only the running one."""
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return Path(sys.executable)
    if UV is None:
        return None
    command = [UV, "python", "find", "--no-project", "--system", "--python-preference", "only-system", version]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    return Path(done.stdout.strip()) if done.returncode == 0 else None


def newer(versions: list[str]) -> list[str]:
    """Those of the versions that are newer than the running Python and found."""
    later = [version for version in versions if tuple(map(int, version.split("."))) > sys.version_info[:2]]
    return [version for version in later if found(version)]
