"""Which files are meant by the files, folders and patterns that a person names."""

from collections.abc import Iterable
from glob import glob
from pathlib import Path

from cxr.core.errors import InputError

# DICOM files often have no suffix at all.
SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom", "")


def find_files(words: Iterable[str]) -> list[Path]:
    """The image files that `words` name, each once: a word's in the order of their paths, the words in theirs.

    A file is taken whatever its name, a folder with all below it that `SUFFIXES` fits, and a pattern (`**` goes down
    into folders) as the shell would have it. What is hidden in a folder is left out.

    Raises:
        InputError: where a word names nothing.
    """
    found: dict[Path, Path] = {}
    for word in words:
        for path in _files_of(word):
            found.setdefault(path.resolve(), path)
    return list(found.values())


def _files_of(word: str) -> list[Path]:
    # A name that is there may hold brackets: it is no pattern.
    matches = [word] if Path(word).exists() else sorted(glob(word, recursive=True))  # noqa: PTH207 (may be absolute)
    paths = [Path(name) for name in matches]
    files = [file for path in paths for file in (_files_in(path) if path.is_dir() else [path])]
    if not files:
        kinds = ", ".join(filter(None, SUFFIXES))
        problem = f"no image in it ({kinds}, or no suffix)" if paths else "there is no such file or folder"
        raise InputError(f"{word}: {problem}; name files, folders or patterns of yours")
    return files


def _files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and _is_wanted(path.relative_to(folder)))


def _is_wanted(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in path.parts)
