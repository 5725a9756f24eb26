"""The relay's image without docker: its steps in a clean directory make a relay that serves and stops."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.interop.peers.process import REPOSITORY

CHECK = REPOSITORY / "plugins" / "tom-relay" / "deploy" / "check.sh"
PATIENCE = 580


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE + 20)
def test_the_steps_of_the_image_make_a_relay(tmp_path: Path) -> None:
    """What the Dockerfile copies and runs is enough: the relay is installed, answers, keeps statistics, stops."""
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    done = subprocess.run(
        ["bash", CHECK],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("the image's steps work: the relay serves, and stops when it is told to\n")
    assert list(tmp_path.iterdir()) == [], "it leaves nothing behind"
