"""How amounts are said to people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tom_connect.cli.progress import TransferProgress
    from tom_connect.transfer import Manifest, TransferResult


def amount(size: float) -> str:
    """Bytes in decimal units, such as 67.1 MB."""
    from rich.filesize import decimal

    return decimal(int(size))


def what(manifest: Manifest) -> str:
    """What is transferred, such as `photos (12 files, 1.5 MB)`."""
    size = amount(manifest.total_size)
    if not manifest.is_folder:
        return f"{manifest.name} ({size})"
    count = manifest.file_count
    return f"{manifest.name} ({count} {'file' if count == 1 else 'files'}, {size})"


def moved(result: TransferResult, progress: TransferProgress) -> str:
    """How long it took, how fast it was, and how much had not to be sent."""
    had = f", {amount(result.had)} were there already" if result.had else ""
    if not result.moved:
        return f"nothing had to be sent{had}"
    return f"{progress.seconds:.1f} s at {amount(progress.rate(result.moved))}/s{had}"
