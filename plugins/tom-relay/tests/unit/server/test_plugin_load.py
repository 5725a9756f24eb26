"""What loading the plugin costs those who serve nothing."""

from __future__ import annotations

import subprocess
import sys


def test_no_http_server_is_imported_with_the_plugin() -> None:
    """Every command and endpoint loads the plugin; the HTTP server comes with the first use of its class alone."""
    program = (
        "import sys, tom_relay.server.plugin as plugin; assert 'aiohttp' not in sys.modules; "
        "import tom_relay.server as server; assert all(hasattr(server, name) for name in server.__all__); "
        "assert 'aiohttp' in sys.modules; assert not hasattr(server, 'Nothing')"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
