"""`tom-connect id`: who we are."""

from __future__ import annotations

from tom_connect.cli.options import Invocation, tom_command


@tom_command("id")
async def command(run: Invocation) -> None:
    """Show our NodeId; make the secret key on first use."""
    node_id = run.endpoint_config().secret_key
    assert node_id is not None
    run.output.event("id", str(node_id.node_id), node_id=node_id.node_id)
