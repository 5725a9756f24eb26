"""Files that a node keeps between runs: small JSON objects, replaced atomically, readable by their owner alone.

They are caches: one that can't be read is set aside and reported, one that can't be written is reported, and neither
stops anything. None is flushed to the disk by force, since a power cut costs no more than a cold start.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pathlib
import tempfile
from typing import Any

import attrs

MAX_FILE = 1 << 20
"""Bytes of a state file, unless its owner says otherwise."""
SET_ASIDE = ".damaged"
"""What is appended to the name of a file that could not be understood; one such file is kept."""


@attrs.frozen
class StateFile:
    """One file. `max_size`: bytes above which it counts as damaged, and is not written."""

    path: pathlib.Path
    logger: logging.Logger
    max_size: int = MAX_FILE

    def read(self) -> dict[str, Any] | None:
        """What was written, None if there is nothing. What is no JSON object, or too large, is set aside."""
        try:
            with self.path.open("rb") as file:
                data = file.read(self.max_size + 1)
            if len(data) > self.max_size:
                raise ValueError(f"it has more than {self.max_size} bytes")
            found = json.loads(data)
            if not isinstance(found, dict):
                raise ValueError("it holds no object")
            return found
        except FileNotFoundError:
            return None
        except OSError as exc:
            self.logger.warning("%s can't be read: %s", self.path, exc)
        except (ValueError, RecursionError) as exc:
            self.set_aside(str(exc))
        return None

    def set_aside(self, reason: str) -> None:
        """Move the file out of the way, as its content is of no use: a person may want to look at it."""
        aside = self.path.with_name(self.path.name + SET_ASIDE)
        try:
            os.replace(self.path, aside)  # noqa: PTH105 - plain names on both sides
        except OSError as exc:
            self.logger.warning("%s is damaged (%s) and can't be set aside: %s", self.path, reason, exc)
        else:
            self.logger.warning("%s is damaged (%s); it is now %s, and is made anew", self.path, reason, aside.name)

    def write(self, data: dict[str, Any]) -> bool:
        """Replace the content, in one step for whoever reads it; False, and a message, if that failed."""
        temporary = None
        try:
            text = json.dumps(data, separators=(",", ":"))
            if len(text) > self.max_size:
                raise OSError(f"{len(text)} bytes are more than the {self.max_size} allowed")
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Its mode is 0600, and so is that of the file which it becomes.
            descriptor, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=self.path.name, suffix=".tmp")
            with open(descriptor, "w", encoding="ascii") as file:  # noqa: PTH123 - takes the open descriptor
                file.write(text)
            os.replace(temporary, self.path)  # noqa: PTH105 - plain names on both sides
        except OSError as exc:  # Windows refuses while another process reads the file; the next time will do
            self.logger.warning("%s can't be written: %s", self.path, exc)
            if temporary is not None:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)  # noqa: PTH108
            return False
        return True
