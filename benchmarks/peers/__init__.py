"""Many peers on one endpoint."""
