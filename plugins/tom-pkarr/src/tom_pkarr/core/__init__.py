"""What Pkarr and DNS answers mean and which packets are kept, without a clock, a socket or a task."""

from __future__ import annotations
