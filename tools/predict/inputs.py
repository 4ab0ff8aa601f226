"""Expansion of the files, folders and patterns on the command line to image files."""

from collections.abc import Iterable
from glob import glob
from pathlib import Path

from cxr.core.errors import InputError

# DICOM files often have no suffix.
SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom", "")


def find_files(inputs: Iterable[str]) -> list[Path]:
    """Return the image files of `inputs`, each once: in the order of `inputs`, then sorted by path.

    A file may have any suffix, a folder stands for all files below it with one of `SUFFIXES`, and a pattern follows
    the rules of the shell (`**` matches any number of folders). Hidden files in folders are skipped.

    Raises:
        InputError: if one of `inputs` matches no image file.
    """
    found: dict[Path, Path] = {}
    for name in inputs:
        for path in _matching_files(name):
            found.setdefault(path.resolve(), path)
    return list(found.values())


def _matching_files(name: str) -> list[Path]:
    # A file name may contain brackets, so an existing file takes precedence over a pattern.
    matches = [name] if Path(name).exists() else sorted(glob(name, recursive=True))  # noqa: PTH207 (may be absolute)
    paths = [Path(match) for match in matches]
    files = [file for path in paths for file in (_files_in(path) if path.is_dir() else [path])]
    if not files:
        kinds = ", ".join(filter(None, SUFFIXES))
        problem = f"it contains no image ({kinds}, or no suffix)" if paths else "there is no such file or folder"
        raise InputError(f"{name}: {problem}; give image files, folders or quoted patterns")
    return files


def _files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and _is_image(path.relative_to(folder)))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in path.parts)
