"""Expansion of the files, folders and patterns on the command line to image files."""

import os
from collections.abc import Iterable, Iterator
from glob import escape, glob
from pathlib import Path

from cxr.core.errors import InputError, format_names, warn
from cxr.core.files import open_file
from tools.predict.output import printable
from tools.predict.reading import is_dicom

# DICOM files often have no suffix, or the last number of a UID: 1.2.840.113619.2.5.123. The latter are recognised by
# their content.
SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom", "")


def find_files(inputs: Iterable[str]) -> list[Path]:
    """Return the image files of `inputs`, each once: in the order of `inputs`, then sorted by path.

    A file may have any suffix, a folder stands for all files below it with one of `SUFFIXES` and all DICOM files, and a
    pattern follows the rules of the shell (`**` matches any number of folders). Hidden files in folders are skipped.
    Links to folders below a folder or `**` are not followed, since they may form loops: a warning names them, and
    another one the files of a folder that are left out.

    Raises:
        InputError: if one of `inputs` matches no image file.
    """
    found: dict[str, Path] = {}
    for name in inputs:
        for path in _matching_files(name):
            # Unlike Path.resolve, realpath accepts links that form a loop; reading such a file is a failure later.
            found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def _matching_files(name: str) -> list[Path]:
    # A file name may contain brackets, so an existing file takes precedence over a pattern.
    matches = [name] if os.path.lexists(name) else sorted({str(Path(match)) for match in _matches(name)})
    paths = [Path(match) for match in matches]
    files = [file for path in paths for file in (_files_in(path) if path.is_dir() else [path])]
    if not files:
        kinds = ", ".join(filter(None, SUFFIXES))
        problem = f"it contains no image ({kinds}, no suffix, or DICOM)" if paths else "there is no such file or folder"
        raise InputError(f"{printable(name)}: {problem}; give image files, folders or quoted patterns")
    return files


def _matches(pattern: str) -> Iterator[str]:
    """Yield the paths that match `pattern`; unlike `glob`, do not follow links below `**`, which may form loops."""
    before, found, after = f"/{pattern}/".partition("/**/")
    if not found:
        yield from glob(pattern)  # noqa: PTH207 (may be absolute)
        return
    for start in glob(f"{before}/"[1:] or "./"):  # noqa: PTH207
        for folder in _folders_below(Path(start)):
            yield from _matches(f"{escape(str(folder))}/{after.rstrip('/') or '*'}")


def _files_in(folder: Path) -> list[Path]:
    """Return the image files below `folder`, with links that lead nowhere; a warning names the other files."""
    paths = (path for below in _folders_below(folder) for path in below.iterdir() if not path.is_dir())
    visible = sorted(path for path in paths if not path.name.startswith("."))
    images = [path for path in visible if path.suffix.lower() in SUFFIXES or _starts_as_dicom(path)]
    if others := [printable(path.relative_to(folder)) for path in sorted(set(visible) - set(images))]:
        warn(f"{printable(folder)}: not PNG, JPEG or DICOM, so left out: {format_names(others)}")
    return images


def _starts_as_dicom(path: Path) -> bool:
    try:
        with open_file(path) as file:
            return is_dicom(file.read(132))
    except (InputError, OSError):
        return False


def _folders_below(folder: Path) -> Iterator[Path]:
    """Yield `folder` and all folders below it, without hidden ones and links."""
    pending = [folder]
    while pending:
        yield (below := pending.pop())
        folders = [path for path in below.iterdir() if path.is_dir() and not path.name.startswith(".")]
        pending += [path for path in folders if not path.is_symlink()]
        for path in folders:
            if path.is_symlink():
                warn(f"{printable(path)}: a link to a folder is not followed; give it as an input")
