"""Get the real data set, NIH ChestX-ray14: 112,120 images, 45 GB.

    python -m tools.download data/nih                     from NIH's own twelve archives
    python -m tools.download data/nih --from ~/kaggle     from files that you have already

Fetches three archives at a time, checks size and MD5 sum, turns each into a zip of which any image can be read without
the others (DVC is slow with 112,120 small files), reads the zip back, and then deletes the tar.gz. Stop it at any point
and run it again: it goes on where it was. An images_0NN.tar.gz that you put into DIR yourself is used, and then deleted
as well.

--from takes what somebody already has, and fetches nothing: NIH's images_0NN.tar.gz, zips with PNGs in them, Kaggle's
folders images_0NN/images, a folder images, or loose PNGs, with the tables. Zips, PNGs and tables become hard links
where the file system allows, and copies where not; tar.gz files become zips. What is lacking at the end is named.

Everything was tried with a server on the same machine; NIH's own never, for want of a network.
"""

import argparse
import fcntl
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

from cxr.core.errors import InputError
from cxr.core.tables import name_some
from cxr.datasets.nih import read_table
from cxr.images.raw_images import RawImages
from tools.download.archives import to_zip
from tools.download.progress import Progress
from tools.download.room import ZIP_TO_TAR, check_room
from tools.download.sources import ARCHIVES, TABLES, Source
from tools.download.taking import check_archive, take
from tools.download.transfer import fetch, part_of, size_of

AT_ONCE = 3
_LAYOUTS = ("images_*.zip", "images/*.png", "images_*/images/*.png")
Work = Callable[[Source, Path, Progress], object]


def download(folder: Path) -> None:
    """Fetch the tables and archives that `folder` lacks.

    Raises:
        InputError: naming every file that could not be had, or the room that the disk lacks.
    """
    together([table for table in TABLES if not _has_table(table, folder)], folder, fetch, "fetch", passes=1)
    if lacking(folder):
        wanted = [source for source in ARCHIVES if not zip_of(source, folder).is_file()]
        check_room(folder, room_for(wanted, folder))
        together(wanted, folder, fetch_as_zip, "fetch, then pack", passes=2)


def fetch_as_zip(source: Source, folder: Path, progress: Progress) -> None:
    """Make the zip of the archive `source` in `folder`, from its tar.gz, which is fetched if it is not there."""
    tar = folder / source.name
    if tar.is_file():
        check_archive(tar)
    else:
        fetch(source, folder, progress)
    progress.say(f"{tar}: size and MD5 are right, makes the zip")
    count = to_zip(tar, zip_of(source, folder), progress.advance)
    tar.unlink()
    progress.say(f"{zip_of(source, folder)}: {count:,} images")


def together(sources: Sequence[Source], folder: Path, work: Work, what: str, *, passes: int) -> None:
    """Do `work` for each source, `AT_ONCE` at a time, with one bar of `what`: a byte counts `passes` times.

    One that fails does not stop the others; an interruption stops all, and what has arrived is kept.

    Raises:
        InputError: naming all that failed.
    """
    have = sum(_have(source, folder) for source in sources)
    progress = Progress(what, passes * sum(source.size for source in sources), have)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        tasks = [pool.submit(_attempt, work, source, folder, progress) for source in sources]
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


def lacking(folder: Path) -> list[str]:
    """The images that the table in `folder` names and `folder` does not have, sorted."""
    names = list(read_table(folder)["image"])
    if not any(any(folder.glob(pattern)) for pattern in _LAYOUTS):
        return names
    with RawImages(folder) as images:
        return [name for name in names if name not in images]


def room_for(sources: Sequence[Source], folder: Path) -> float:
    """Bytes that the disk must have free: all zips, and the tar.gz files that are there at once before they go."""
    still = sorted(source.size - _have(source, folder) for source in sources)
    return sum(source.size for source in sources) * ZIP_TO_TAR + sum(still[-AT_ONCE:])


def zip_of(source: Source, folder: Path) -> Path:
    """The zip that an archive becomes."""
    return folder / source.name.replace(".tar.gz", ".zip")


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`; raise InputError where another run of this tool has it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise InputError(f"another download into {folder} is running; wait for it, or stop it") from None
    finally:
        os.close(descriptor)


def command_line() -> argparse.ArgumentParser:
    """The command's arguments; its help is this module's docstring."""
    parser = argparse.ArgumentParser(
        "python -m tools.download", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder to fill, then raw_dir of params.yaml")
    parser.add_argument("--from", type=Path, dest="source", metavar="DIR", help="take what is in this folder")
    return parser


def main() -> None:
    """Take or fetch, look whether all is there, and name the next command."""
    asked = command_line().parse_args()
    folder: Path = asked.folder
    folder.mkdir(parents=True, exist_ok=True)
    with alone_in(folder):
        if asked.source:
            take(asked.source, folder)
        else:
            download(folder)
        _check_complete(folder)
        _remove_used(folder)
    print(f"{folder}: {len(read_table(folder)):,} images, all that the table names")
    print(f"next: dvc exp run -S {shlex.quote(f'raw_dir={folder}')}")


def _attempt(work: Work, source: Source, folder: Path, progress: Progress) -> str | None:
    """What went wrong, in words."""
    try:
        work(source, folder, progress)
    except InputError as error:
        return str(error)
    return None


def _remove_used(folder: Path) -> None:
    """Remove the tar.gz files whose zip is there: a run that was killed just before it did so left them."""
    for source in ARCHIVES:
        if zip_of(source, folder).is_file():
            (folder / source.name).unlink(missing_ok=True)


def _has_table(table: Source, folder: Path) -> bool:
    # Any of the three published versions of the labels will do, and two would be one too many.
    return any(folder.glob("Data_Entry_2017*.csv" if table.name.startswith("Data_Entry") else table.name))


def _have(source: Source, folder: Path) -> int:
    return min(source.size, max(size_of(folder / source.name), size_of(part_of(source, folder))))


def _check_complete(folder: Path) -> None:
    names = lacking(folder)
    if names:
        raise InputError(
            f"{folder} lacks {len(names):,} of the images that its table names: {name_some(names)}. What is there "
            f"stays; `python -m tools.download {folder}` fetches each of NIH's archives that has no zip there"
        )
