"""Check of the free disk space."""

import shutil
from pathlib import Path

from cxr.core.errors import InputError

# The size of a zip archive relative to the tar.gz file: PNGs do not compress, and each entry has a header.
ZIP_TO_TAR = 1.02


def check_disk_space(folder: Path, needed: float) -> None:
    """Raise InputError if the disk of `folder` has less than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder} needs {needed / 1e9:.1f} GB more but the disk has only {free / 1e9:.1f} GB free; free some "
            "space or use a folder on another disk. Existing files are kept"
        )
