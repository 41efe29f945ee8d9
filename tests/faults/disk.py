"""A small disk of a run's own, to be filled up: a tmpfs. Root."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from tests.aftercare import Aftercare

DISK_MEGABYTES = 400
CHUNK_BYTES = 1024 * 1024
BALLAST = "ballast"


class Disk:
    def __init__(self, aftercare: Aftercare) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hub-disk-"))
        size = f"size={DISK_MEGABYTES}m,mode=0777"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(self.folder)], check=True)
        aftercare.promise("umount", "--lazy", str(self.folder))

    def fill(self) -> None:
        """Until not a byte more goes in. What others free meanwhile is theirs: call it again."""
        for size in (CHUNK_BYTES, 4096, 1):
            try:
                with open(self.folder / BALLAST, "ab", buffering=0) as ballast:
                    while ballast.write(bytes(size)):
                        pass
            except OSError:
                continue

    def free(self) -> None:
        (self.folder / BALLAST).unlink(missing_ok=True)

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)
        self.folder.rmdir()
