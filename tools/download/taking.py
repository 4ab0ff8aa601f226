"""Taking the images that somebody already has: archives, folders or loose files, without a second copy if possible."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from cxr.core.errors import InputError
from cxr.core.files import atomic_write
from tools.download.archives import refuse_outside, to_zip
from tools.download.progress import Progress
from tools.download.room import check_room
from tools.download.sources import ARCHIVES, TABLES
from tools.download.transfer import md5_of, size_of

_TABLE_NAMES = ("Data_Entry_2017*.csv", *(table.name for table in TABLES[1:]))


def take(source: Path, folder: Path) -> None:
    """Bring the tables and images in `source` into `folder`, in a layout that the stages read; leave `source` as it is.

    Zips, PNGs and tables become hard links, or copies where `source` is on another file system; each of NIH's tar.gz
    files becomes a zip. What `folder` has already stays, so this can be stopped and run again.

    Raises:
        InputError: where there is nothing to take, an archive is broken, not NIH's or has members outside its folder,
            or the disk has no room.
    """
    if not source.is_dir():
        raise InputError(f"--from {source}: there is no such folder")
    if folder.resolve() == source.resolve():
        raise InputError(f"--from {source} is the folder to fill itself; leave --from out")
    plan = dict(_plan(source))
    if not any(target.suffix in (".zip", ".png") for target in plan.values()):
        raise InputError(
            f"--from {source} has no images_0NN.tar.gz, no zip with PNGs, and no PNGs in it, in images or in "
            "images_0NN/images"
        )
    todo = {path: folder / target for path, target in plan.items() if not (folder / target).exists()}
    check_room(folder, sum(size_of(path) for path in todo if _needs_room(path, folder)))
    progress = Progress("take", sum(size_of(path) for path in todo))
    try:
        for path, target in todo.items():
            _bring(path, target, progress)
    finally:
        progress.close()


def _plan(source: Path) -> Iterator[tuple[Path, Path]]:
    """Each file of `source` that is wanted, and the path that it gets in the folder to fill."""
    for pattern in _TABLE_NAMES:
        yield from ((path, Path(path.name)) for path in sorted(source.glob(pattern)))
    for path in sorted(source.glob("images_*.tar.gz")):
        yield path, Path(path.name.replace(".tar.gz", ".zip"))
    for path in sorted(source.glob("*.zip")):
        if _has_images(path):
            yield path, Path(path.name if path.name.startswith("images_") else f"images_{path.name}")
    yield from ((path, Path("images") / path.name) for path in sorted(source.glob("*.png")))
    for pattern in ("images/*.png", "images_*/images/*.png"):
        yield from ((path, path.relative_to(source)) for path in sorted(source.glob(pattern)))


def _has_images(archive: Path) -> bool:
    try:
        with ZipFile(archive) as file:
            names = file.namelist()
    except BadZipFile as error:
        raise InputError(f"{archive} is not a whole zip archive: {error}; fetch it again, or move it away") from None
    refuse_outside(names, archive)
    return any(name.endswith(".png") for name in names)


def _needs_room(path: Path, folder: Path) -> bool:
    return path.suffix == ".gz" or path.stat().st_dev != folder.stat().st_dev


def _bring(path: Path, target: Path, progress: Progress) -> None:
    if path.suffix == ".gz":
        check_archive(path)
        count = to_zip(path, target, progress.advance)
        progress.say(f"{target}: {count:,} images")
    else:
        link_or_copy(path, target)
        progress.advance(size_of(path))


def check_archive(tar: Path) -> None:
    """Raise InputError where `tar` has the name of one of NIH's archives and other bytes."""
    wanted = {source.name: source for source in ARCHIVES}.get(tar.name)
    if wanted and (size_of(tar) != wanted.size or md5_of(tar) != wanted.md5):
        raise InputError(
            f"{tar} is not NIH's: it has {size_of(tar):,} bytes of {wanted.size:,}, or another MD5 than {wanted.md5}; "
            "fetch it again, or move it away"
        )


def link_or_copy(path: Path, target: Path) -> None:
    """Make `target` the same file as `path`, or a copy where the file system cannot."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path.resolve(), target)
    except OSError:
        with atomic_write(target) as temporary:
            shutil.copyfile(path, temporary)
