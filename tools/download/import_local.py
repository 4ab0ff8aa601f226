"""Import of existing files: archives, folders or single images, with hard links instead of copies where possible."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from cxr.core.errors import InputError, format_names
from cxr.core.files import atomic_write
from cxr.images.limits import MAX_BYTES
from cxr.images.raw_images import open_archive
from tools.download.archives import check_member_paths, tar_to_zip
from tools.download.disk_space import check_disk_space
from tools.download.progress import Progress
from tools.download.sources import ARCHIVES, EXPERT_LABELS, TABLES
from tools.download.transfer import file_md5, file_size

_TABLE_PATTERNS = ("Data_Entry_2017*.csv", *(table.name for table in (*TABLES[1:], *EXPERT_LABELS)))


def import_files(source: Path, folder: Path) -> None:
    """Import the tables and images in `source` into `folder`, in a layout that the stages read.

    Zips, PNGs and tables become hard links, or copies if `source` is on another file system; NIH's tar.gz files are
    converted to zips. `source` is unchanged. Files that exist in `folder` are kept, so the import can be resumed.

    Raises:
        InputError: if `source` has no images, an archive is damaged, not NIH's or has paths outside its folder, or
            the disk has too little free space.
    """
    if not source.is_dir():
        raise InputError(f"--from {source}: folder not found")
    if folder.resolve() == source.resolve():
        raise InputError(f"--from {source} is the target folder itself; omit --from")
    targets = dict(_targets(source))
    if not any(target.suffix in (".zip", ".png") for target in targets.values()):
        raise InputError(
            f"--from {source} has no images: neither images_0NN.tar.gz, zips with PNGs, nor PNGs in the folder itself, "
            "in images or in images_0NN/images"
        )
    if special := [path.name for path in targets if not path.is_file()]:
        raise InputError(f"--from {source}: neither files nor links to files: {format_names(special)}; remove them")
    pending = {path: folder / target for path, target in targets.items() if not (folder / target).exists()}
    check_disk_space(folder, sum(file_size(path) for path in pending if _needs_space(path, folder)))
    progress = Progress("import", sum(file_size(path) for path in pending))
    try:
        for path, target in pending.items():
            _import_file(path, target, progress)
    finally:
        progress.close()


def _targets(source: Path) -> Iterator[tuple[Path, Path]]:
    """Yield the path of each file to import, and its target path relative to the folder."""
    for pattern in _TABLE_PATTERNS:
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
    with open_archive(archive) as file:
        members = file.infolist()
    check_member_paths((member.filename for member in members), archive)
    images = [member for member in members if member.filename.endswith(".png")]
    if large := [member.filename for member in images if member.file_size > MAX_BYTES]:
        raise InputError(f"{archive}: images of more than {MAX_BYTES:,} bytes: {format_names(large)}; move it away")
    return bool(images)


def _needs_space(path: Path, folder: Path) -> bool:
    return path.suffix == ".gz" or path.stat().st_dev != folder.stat().st_dev


def _import_file(path: Path, target: Path, progress: Progress) -> None:
    if path.suffix == ".gz":
        check_archive(path)
        count = tar_to_zip(path, target, progress.advance)
        progress.print(f"{target}: {count:,} images")
    else:
        link_or_copy(path, target)
        progress.advance(file_size(path))


def check_archive(tar: Path) -> None:
    """Raise InputError if `tar` has the name of one of NIH's archives but not its size and MD5 checksum."""
    expected = {source.name: source for source in ARCHIVES}.get(tar.name)
    if expected and (file_size(tar) != expected.size or file_md5(tar) != expected.md5):
        raise InputError(
            f"{tar} is not NIH's archive: its size is {file_size(tar):,} of {expected.size:,} bytes, or its MD5 "
            f"checksum differs from {expected.md5}; download it again or move it away"
        )


def link_or_copy(path: Path, target: Path) -> None:
    """Create `target` as a hard link to `path`, or as a copy if the file system does not support links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path.resolve(), target)
    except OSError:
        with atomic_write(target) as temporary:
            shutil.copyfile(path, temporary)
