"""Whether folders of packs have changed, by looking: names, sizes and times of its files.

Looking works where notifications of the kernel do not: network file systems, folders that Kubernetes swaps by a link. A thousand
files take a few milliseconds.
"""

import os
from pathlib import Path

State = frozenset[tuple[str, int, int]]
"""Path, size in bytes and time of change in ns of each file."""


def state_of(*folders: Path) -> State:
    """How the folders are now; files that vanish meanwhile are left out, and so is a folder that is not there."""
    files: list[tuple[str, int, int]] = []
    for place, _, names in (found for folder in folders for found in os.walk(folder, followlinks=True)):
        for name in names:
            path = os.path.join(place, name)
            try:
                status = os.stat(path)
            except OSError:
                continue
            files.append((path, status.st_size, status.st_mtime_ns))
    return frozenset(files)
