"""What a release of these packages takes: `python -m release --dry-run`, see docs/how-to/release.md."""
