"""What npm's packages run in: node.js, and the folder into which they are installed."""

from __future__ import annotations

import shutil

from tests.interop.peers.process import REPOSITORY, LineProcess, PeerMissing
from tom_connect.testing.natlab import Host

NPM = REPOSITORY / "tests" / "interop" / "npm"


def start_node(
    package: str, script: str, *arguments: str, options: tuple[str, ...] = (), on: Host | None = None
) -> LineProcess:
    """Start a script that needs an npm package, here or on a machine of a lab. `options`: of node.

    Raises PeerMissing without node or the package.
    """
    node = shutil.which("node")
    if node is None:
        raise PeerMissing(f"node.js is not installed: npm's {package} needs node 18 or newer")
    if not (NPM / "node_modules" / package).is_dir():
        raise PeerMissing(f"npm's {package} is not installed: npm ci --prefix tests/interop/npm")
    command = [node, *options, str(NPM / script), *arguments]
    return LineProcess.start(command if on is None else on.command(command))
