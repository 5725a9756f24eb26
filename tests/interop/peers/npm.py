"""What npm's packages run in: node.js, and the folder into which they are installed."""

from __future__ import annotations

import shutil

from tests.interop.peers.process import REPOSITORY, LineProcess, PeerMissing

NPM = REPOSITORY / "tests" / "interop" / "npm"


def start_node(package: str, script: str, *arguments: str, options: tuple[str, ...] = ()) -> LineProcess:
    """Start a script that needs an npm package. `options`: of node; raises PeerMissing without node or the package."""
    node = shutil.which("node")
    if node is None:
        raise PeerMissing(f"node.js is not installed: npm's {package} needs node 18 or newer")
    if not (NPM / "node_modules" / package).is_dir():
        raise PeerMissing(f"npm's {package} is not installed: npm ci --prefix tests/interop/npm")
    return LineProcess.start([node, *options, str(NPM / script), *arguments])
