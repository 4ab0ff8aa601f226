import os
import re
import shutil
import subprocess
import sys
import tracemalloc
from collections import namedtuple
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cxr.core.errors import InputError
from cxr.core.image_array import open_images
from cxr.core.tables import read_sample
from cxr.images.limits import MAX_BYTES
from stages import resize, sample
from tests.fixtures.nih_folder import numbered_rows, write_nih
from tests.fixtures.project import ROOT
from tests.fixtures.radiographs import png_of_size
from tests.fixtures.stages import error_of, files_in, run_stage, write_params

SIDE = 40
ROWS = numbered_rows(30)
IMAGES, DESCRIPTION = Path("data/images.npy"), Path("data/images.json")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run in, with 30 images in `raw`, of which 20 are in data/sample.csv."""
    write_nih(tmp_path / "raw", ROWS, side=SIDE)
    write_params(tmp_path, raw_dir="raw", image_size=32, **{"sample.size": 20})
    monkeypatch.chdir(tmp_path)
    sample.main()
    return tmp_path


def names_in(folder: Path) -> list[str]:
    return list(read_sample(folder / "data/sample.csv")["image"])


def resize_with_pillow(path: Path, size: int) -> NDArray[np.uint8]:
    """Return the resized first channel; all channels are equal."""
    with Image.open(path) as image:
        return np.asarray(image.getchannel(0).resize((size, size), Image.Resampling.BILINEAR))


def test_rows_are_the_images_in_the_order_of_the_sample(folder: Path) -> None:
    rows = (folder / "data/sample.csv").read_text().splitlines()
    (folder / "data/sample.csv").write_text("\n".join([rows[0], *reversed(rows[1:])]) + "\n")
    done = run_stage("resize", folder)
    assert done.returncode == 0, done.stderr
    assert "20 images of 32 x 32 pixels" in done.stdout
    packed = np.load(IMAGES, mmap_mode="r")
    assert isinstance(packed, np.memmap)
    assert packed.dtype == np.uint8
    assert packed.shape == (20, 32, 32)
    expected = [resize_with_pillow(folder / "raw/images" / name, 32) for name in names_in(folder)]
    assert np.abs(packed.astype(int) - np.stack(expected)).max() <= 1
    assert names_in(folder)[0] > names_in(folder)[-1]


@pytest.mark.slow
def test_the_file_is_identical_to_that_of_numpy_save(folder: Path) -> None:
    resize.main()
    np.save(folder / "again.npy", np.load(IMAGES))
    assert IMAGES.read_bytes() == (folder / "again.npy").read_bytes()


def move_to_zip(folder: Path) -> Path:
    """Move the images from their folder into an archive and return its path."""
    archive = folder / "raw/images_001.zip"
    with ZipFile(archive, "w", ZIP_DEFLATED) as file:
        for path in (folder / "raw/images").iterdir():
            file.write(path, f"images/{path.name}")
    shutil.rmtree(folder / "raw/images")
    return archive


def test_the_array_can_be_opened_for_its_sample_only(folder: Path) -> None:
    resize.main()
    names = names_in(folder)
    assert open_images(IMAGES, names).shape == (20, 32, 32)
    write_params(folder, raw_dir="raw", image_size=32, data_seed=7, **{"sample.size": 20})
    sample.main()
    with pytest.raises(InputError, match=r"do not belong to the 20 images of the sample"):
        open_images(IMAGES, names_in(folder))


def test_the_description_is_the_same_in_each_run(folder: Path) -> None:
    resize.main()
    first = DESCRIPTION.read_bytes()
    resize.main()
    assert DESCRIPTION.read_bytes() == first
    assert str(folder).encode() not in first


@pytest.mark.parametrize("killed", ["before", "after"])
def test_a_run_killed_around_the_move_of_the_array_leaves_nothing_that_is_accepted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, killed: str
) -> None:
    resize.main()
    old = (folder / "data/sample.csv").read_bytes()
    write_params(folder, raw_dir="raw", image_size=32, data_seed=7, **{"sample.size": 20})
    sample.main()
    replace = Path.replace

    def replace_and_die(self: Path, target: Path) -> None:
        if killed == "after":
            replace(self, target)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace_and_die)
        with pytest.raises(KeyboardInterrupt):
            resize.main()
    for content in (old, (folder / "data/sample.csv").read_bytes()):
        (folder / "data/sample.csv").write_bytes(content)
        with pytest.raises(InputError, match=r"there is no data/images\.json"):
            open_images(IMAGES, names_in(folder))


def test_an_archive_gives_the_same_array_as_a_folder(folder: Path) -> None:
    resize.main()
    first = IMAGES.read_bytes()
    move_to_zip(folder)
    resize.main()
    assert IMAGES.read_bytes() == first


def test_all_damaged_files_are_reported_at_once_and_nothing_is_written(folder: Path) -> None:
    names = names_in(folder)
    images = folder / "raw/images"
    (images / names[2]).write_bytes(b"")
    (images / names[5]).write_bytes(b"<html>not found</html>")
    (images / names[-1]).write_bytes((images / names[-1]).read_bytes()[:300])
    before = files_in(folder)
    message = error_of(run_stage("resize", folder))
    assert "3 of 20 images cannot be read:" in message
    assert f"  {names[2]}: an empty file\n" in message
    assert f"  {names[5]}: not a PNG or JPEG image\n" in message
    assert f"  {names[-1]}: " in message
    assert sum(name in message for name in names) == 3
    assert "add them to sample.exclude" in message
    assert files_in(folder) == before


@pytest.mark.timeout(60)
def test_a_pipe_a_device_and_looping_links_are_reported_with_the_other_files(folder: Path) -> None:
    names = names_in(folder)
    paths = [folder / "raw/images" / name for name in names]
    for path in paths[:5]:
        path.unlink()
    os.mkfifo(paths[0])
    paths[1].symlink_to("/dev/zero")
    paths[2].symlink_to(paths[2].name)
    paths[3].mkdir()
    with paths[4].open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    paths[5].write_bytes(b"II*\0")
    paths[6].write_bytes(png_of_size(1, 67_000_000))
    message = error_of(run_stage("resize", folder))
    assert "7 of 20 images cannot be read:" in message
    for name, reason in zip(
        names,
        (*["is not a regular file"] * 2, "Too many levels of symbolic links", "is not a regular file",
         "more than the limit of 268,435,456", "not a PNG or JPEG image", "1 x 67,000,000 pixels are too many"),
        strict=False,
    ):  # fmt: skip
        assert re.search(f"^  {name}: .*{reason}", message, re.MULTILINE)


def test_a_failed_run_keeps_the_previous_array(folder: Path) -> None:
    resize.main()
    first = [path.read_bytes() for path in (IMAGES, DESCRIPTION)]
    (folder / "raw/images" / names_in(folder)[7]).write_bytes(b"")
    write_params(folder, raw_dir="raw", image_size=64)
    with pytest.raises(InputError, match="1 of 20 images cannot be read"):
        resize.main()
    assert [path.read_bytes() for path in (IMAGES, DESCRIPTION)] == first
    assert not any("partial" in name for name in files_in(folder))


@pytest.mark.parametrize("damage", ["data", "header"])
def test_a_damaged_member_of_an_archive_is_reported(folder: Path, damage: str) -> None:
    names = names_in(folder)
    path = move_to_zip(folder)
    with ZipFile(path) as archive:
        start = archive.getinfo(f"images/{names[4]}").header_offset
    content = bytearray(path.read_bytes())
    first = start if damage == "header" else start + 30 + len(f"images/{names[4]}")
    content[first : first + 40] = b"\xff" * 40
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"1 of 20 images cannot be read:\n  {names[4]}: ."):
        resize.main()
    assert not IMAGES.exists()


def test_missing_images_are_reported(folder: Path) -> None:
    names = names_in(folder)
    for name in names[:2]:
        (folder / "raw/images" / name).unlink()
    with pytest.raises(
        InputError,
        match=f"2 of the 20 sampled images are missing in raw: {names[0]}, {names[1]}; complete the download",
    ):
        resize.main()


def test_a_missing_sample_is_reported(folder: Path) -> None:
    (folder / "data/sample.csv").unlink()
    assert "data/sample.csv not found; run `dvc repro` to create" in error_of(run_stage("resize", folder))


def test_too_little_disk_space_is_reported_before_any_work(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 20_000, 20_000))
    before = files_in(folder)
    with pytest.raises(InputError, match=r"images\.npy needs 0\.0 GB but the disk has only 0\.0 GB free"):
        resize.main()
    assert files_in(folder) == before


def run_script(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


# With a limit on the file size, writing fails halfway, as on a file system that does not support larger files.
LIMITED = """
import resource, runpy, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
runpy.run_module("stages.resize", run_name="__main__")
"""
# The temporary name is fixed, so a link of this name to /dev/full makes every write fail; `remove` would delete it.
FULL = """
import cxr.core.files
from cxr.core.errors import run_as_script
from stages import resize
cxr.core.files.remove = lambda path: None
run_as_script(resize.main)
"""


def test_a_file_size_limit_is_one_message(folder: Path) -> None:
    before = files_in(folder)
    done = run_script(LIMITED, folder)
    assert files_in(folder) == before
    assert "File too large" in error_of(done)


def test_a_full_disk_is_one_message(folder: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    (folder / "data/.images.npy.partial").symlink_to("/dev/full")
    assert "No space left on device" in error_of(run_script(FULL, folder))
    assert not IMAGES.exists()


def test_only_a_few_images_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size, count = 64, 3000
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    tracemalloc.start()
    resize.write_images(
        [str(number) for number in range(count)], lambda _: np.zeros((size, size), np.uint8), size, tmp_path / "a"
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "a").stat().st_size == 128 + count * size * size
    assert peak < count * size * size / 4


@pytest.mark.real_data
def test_the_real_originals_are_resized_into_one_array(shared: Path, tmp_path: Path) -> None:
    write_params(tmp_path, raw_dir=str(shared / "nih-originals"), image_size=300)
    for stage in ("sample", "resize"):
        done = run_stage(stage, tmp_path)
        assert done.returncode == 0, done.stderr
    packed = np.load(tmp_path / IMAGES)
    names = names_in(tmp_path)
    assert packed.shape == (91, 300, 300) == (len(names), 300, 300)
    for name, pixels in zip(names, packed.astype(int), strict=True):
        assert np.abs(pixels - resize_with_pillow(shared / "nih-originals/images" / name, 300)).max() <= 1
        assert pixels.std() > 20
