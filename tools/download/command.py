"""Download NIH ChestX-ray14 (112,120 images, 45 GB), or import existing files.

    python -m tools.download data/nih                     download from NIH
    python -m tools.download data/nih --from ~/kaggle     import existing files
    python -m tools.download data/nih --expert-labels     download radiologists' labels, too

Downloads three archives at a time, checks their sizes and MD5 checksums, converts each tar.gz to a zip (DVC is slow
with 112,120 small files), verifies the zip, and deletes the tar.gz. After an interruption, run the command again to
resume. An images_0NN.tar.gz in DIR is converted and deleted, too.

--from imports files without downloading: NIH's images_0NN.tar.gz, zips with PNGs, Kaggle's folders images_0NN/images, a
folder images, or single PNGs, with the tables. Zips, PNGs and tables become hard links if possible, otherwise copies;
tar.gz files are converted to zips. Missing images are reported at the end.

--expert-labels downloads the labels that radiologists gave 4,376 of the images (Google; 1.5 MB). The stage evaluate
compares networks with them. Google's server may ask for a registration: then download the files with a browser.

Tested with a local server only, not with NIH's and Google's.
"""

import argparse
import fcntl
import os
import shlex
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from cxr.core.errors import InputError, format_names
from cxr.datasets.nih import read_table
from cxr.images.raw_images import RawImages
from tools.download.archives import tar_to_zip
from tools.download.disk_space import ZIP_TO_TAR, check_disk_space
from tools.download.import_local import check_archive, import_files
from tools.download.progress import Progress
from tools.download.sources import ARCHIVES, EXPERT_LABELS, TABLES, Source
from tools.download.transfer import fetch, file_size, part_path

MAX_WORKERS = 3
_LAYOUTS = ("images_*.zip", "images/*.png", "images_*/images/*.png")
Work = Callable[[Source, Path, Progress], object]


def download(folder: Path) -> None:
    """Download the tables and archives that are missing in `folder`.

    Raises:
        InputError: if files cannot be downloaded (the message names all of them), or the disk has too little space.
    """
    run_parallel([table for table in TABLES if not _has_table(table, folder)], folder, fetch, "download", passes=1)
    if missing := set(missing_images(folder)):
        existing = set(read_table(folder)["image"]) - missing
        needed = [source for source in ARCHIVES if not zip_path(source, folder).is_file()]
        check_disk_space(folder, required_space(needed, folder))
        run_parallel(needed, folder, partial(fetch_as_zip, existing), "download and convert", passes=2)


def fetch_as_zip(existing: Container[str], source: Source, folder: Path, progress: Progress) -> None:
    """Convert the archive `source` to a zip in `folder`; download its tar.gz first if it is not there.

    The names in `existing` are left out: an image in two places would be an error in the stages.
    """
    tar = folder / source.name
    if tar.is_file():
        check_archive(tar)
    else:
        fetch(source, folder, progress)
    progress.print(f"{tar}: size and MD5 are correct; converting to zip")
    count = tar_to_zip(tar, zip_path(source, folder), progress.advance, existing)
    tar.unlink()
    progress.print(f"{zip_path(source, folder)}: {count:,} images")


def run_parallel(sources: Sequence[Source], folder: Path, work: Work, description: str, *, passes: int) -> None:
    """Call `work` for each source in `MAX_WORKERS` threads, with one progress bar.

    A failure does not stop the other sources. An interruption stops all; received data is kept.

    Args:
        sources: the files to process.
        folder: the target folder.
        work: called with a source, `folder` and the progress bar.
        description: label of the bar.
        passes: number of times that `work` reports each byte.

    Raises:
        InputError: if a source fails; the message reports all failures.
    """
    initial = sum(_received_bytes(source, folder) for source in sources)
    progress = Progress(description, passes * sum(source.size for source in sources), initial)
    with ThreadPoolExecutor(MAX_WORKERS) as pool:
        tasks = [pool.submit(_error_message, work, source, folder, progress) for source in sources]
        try:
            failures = [failure for task in as_completed(tasks) if (failure := task.result())]
        except BaseException:
            progress.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            progress.close()
    if failures:
        raise InputError("\n".join(failures))


def missing_images(folder: Path) -> list[str]:
    """Return the names of the images that are in the table but not in `folder`, sorted."""
    names = list(read_table(folder)["image"])
    if not any(any(folder.glob(pattern)) for pattern in _LAYOUTS):
        return names
    with RawImages(folder) as images:
        return [name for name in names if name not in images]


def required_space(sources: Sequence[Source], folder: Path) -> float:
    """Return the free disk space needed, in bytes: for all zips and the tar.gz files that exist at the same time."""
    remaining = sorted(source.size - _received_bytes(source, folder) for source in sources)
    return sum(source.size for source in sources) * ZIP_TO_TAR + sum(remaining[-MAX_WORKERS:])


def zip_path(source: Source, folder: Path) -> Path:
    """Return the path of the zip that an archive is converted to."""
    return folder / source.name.replace(".tar.gz", ".zip")


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`; raise InputError if another run of this command holds it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise InputError(f"another download into {folder} is running; wait for it or stop it") from None
    finally:
        os.close(descriptor)


def command_line() -> argparse.ArgumentParser:
    """Return the argument parser; its help is the docstring of this module."""
    parser = argparse.ArgumentParser(
        "python -m tools.download", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="target folder; set raw_dir in params.yaml to it")
    parser.add_argument("--from", type=Path, dest="source", metavar="DIR", help="import the files in this folder")
    parser.add_argument("--expert-labels", action="store_true", help="download the labels of radiologists, too")
    return parser


def main() -> None:
    """Import or download, check for missing images, and print the next command."""
    args = command_line().parse_args()
    folder: Path = args.folder
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder):
        if args.source:
            import_files(args.source, folder)
        else:
            download(folder)
        _check_complete(folder)
        _remove_converted(folder)
        if args.expert_labels:
            missing = [source for source in EXPERT_LABELS if not (folder / source.name).is_file()]
            run_parallel(missing, folder, fetch, "download labels", passes=1)
    print(f"{folder}: complete, {len(read_table(folder)):,} images")
    print(f"next: dvc exp run -S {shlex.quote(f'raw_dir={folder}')}")


def _error_message(work: Work, source: Source, folder: Path, progress: Progress) -> str | None:
    """Call `work` and return the message of its InputError, if any."""
    try:
        work(source, folder, progress)
    except InputError as error:
        return str(error)
    return None


def _remove_converted(folder: Path) -> None:
    """Remove tar.gz files whose zip exists: a run that was killed after the conversion leaves them."""
    for source in ARCHIVES:
        if zip_path(source, folder).is_file():
            (folder / source.name).unlink(missing_ok=True)


def _has_table(table: Source, folder: Path) -> bool:
    # Each of the three published versions of the labels is sufficient, and the stages reject more than one.
    return any(folder.glob("Data_Entry_2017*.csv" if table.name.startswith("Data_Entry") else table.name))


def _received_bytes(source: Source, folder: Path) -> int:
    return min(source.size, max(file_size(folder / source.name), file_size(part_path(source, folder))))


def _check_complete(folder: Path) -> None:
    names = missing_images(folder)
    if names:
        raise InputError(
            f"{folder} lacks {len(names):,} of the images in its table: {format_names(names)}. Run "
            f"`python -m tools.download {folder}` to download the archives without a zip; existing files are kept"
        )
