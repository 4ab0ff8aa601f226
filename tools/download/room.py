"""Whether the disk has room for what is to come."""

import shutil
from pathlib import Path

from cxr.core.errors import InputError

# A zip is hardly larger than the tar.gz that it comes from: PNGs do not compress, each has a header.
ZIP_TO_TAR = 1.02


def check_room(folder: Path, needed: float) -> None:
    """Raise InputError where the disk of `folder` has less than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder} needs {needed / 1e9:.1f} GB more and its disk has {free / 1e9:.1f} GB free: make room, or name "
            "a folder on another disk; what is there already is kept"
        )
