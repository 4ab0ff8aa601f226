import os
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZIP_LZMA, BadZipFile, ZipFile

import pytest

from cxr.core.errors import InputError
from cxr.images import raw_images
from cxr.images.raw_images import RawImages
from tests.fixtures.nih_folder import numbered_rows, write_nih

ROWS = numbered_rows(40)
NAMES = [name for name, _, _ in ROWS]


@pytest.fixture(params=["images", "images_0NN", "zip", "mixed"])
def layout(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The same 40 images in one of NIH's layouts, and as separate files in `../flat/images`."""
    flat = write_nih(tmp_path / "flat", ROWS)
    raw = tmp_path / "raw"
    for number, name in enumerate(NAMES):
        part = "images" if request.param == "images" else f"images_{1 + number // 15:03d}"
        target = raw / part / name if part == "images" else raw / part / "images" / name
        content = (flat / "images" / name).read_bytes()
        if request.param == "zip" or (request.param == "mixed" and number >= 15):
            raw.mkdir(exist_ok=True)
            with ZipFile(raw / f"{part}.zip", "a", ZIP_DEFLATED) as archive:
                archive.writestr(f"images/{name}" if number % 2 else name, content)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    return raw


def test_every_layout_gives_the_same_bytes_in_any_thread(layout: Path) -> None:
    with RawImages(layout) as images, ThreadPoolExecutor(8) as pool:
        assert all(name in images for name in NAMES)
        assert "nothing.png" not in images
        read = list(pool.map(images.read, NAMES * 5))
        with pytest.raises(KeyError):
            images.read("nothing.png")
    assert read == [(layout.parent / "flat/images" / name).read_bytes() for name in NAMES] * 5


def test_a_folder_without_images_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match=r"has no images: neither images/\*\.png, .* nor a folder train"):
        RawImages(tmp_path)
    with pytest.raises(InputError, match=r"folder .*nowhere not found; set raw_dir"):
        RawImages(tmp_path / "nowhere")


def zip_of(path: Path, members: dict[str, bytes], compression: int = ZIP_DEFLATED) -> bytearray:
    """Write an archive and return its bytes."""
    with ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return bytearray(path.read_bytes())


@pytest.mark.parametrize("other", ["images_001/images/a.png", "images_002.zip", "images_001.zip"])
def test_an_image_in_two_places_is_refused(tmp_path: Path, other: str) -> None:
    first, second = (b"one", b"another")
    if other == "images_001.zip":
        zip_of(tmp_path / other, {"one/a.png": first, "two/a.png": second})
    else:
        (tmp_path / "images").mkdir()
        (tmp_path / "images/a.png").write_bytes(first)
        (tmp_path / other).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / other).write_bytes(second)
        if other.endswith("zip"):
            zip_of(tmp_path / other, {"images/a.png": second})
    with pytest.raises(InputError, match=rf"^a\.png is in two places: .*a\.png and .*{other}.*; remove one of them$"):
        RawImages(tmp_path)


def test_a_member_above_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_images, "MAX_BYTES", 1000)
    zip_of(tmp_path / "images_001.zip", {"a.png": bytes(1001), "b.png": bytes(1000)})
    with RawImages(tmp_path) as images:
        monkeypatch.setattr(ZipFile, "open", None)
        with pytest.raises(InputError, match=r"images_001\.zip: a\.png has 1,001 bytes, more than the limit of 1,000"):
            images.read("a.png")
        monkeypatch.undo()
        assert images.read("b.png") == bytes(1000)


def test_a_member_with_an_understated_size_is_not_expanded(tmp_path: Path) -> None:
    path = tmp_path / "images_001.zip"
    content = zip_of(path, {"a.png": bytes(30_000_000)})
    directory = content.rindex(b"PK\x01\x02")
    content[directory + 24 : directory + 28] = (100).to_bytes(4, "little")
    path.write_bytes(content)
    with RawImages(tmp_path) as images:
        tracemalloc.start()
        with pytest.raises(BadZipFile):
            images.read("a.png")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 10_000_000


@pytest.mark.parametrize("compression", [ZIP_BZIP2, ZIP_LZMA])
def test_a_member_of_another_compression_is_refused(tmp_path: Path, compression: int) -> None:
    zip_of(tmp_path / "images_001.zip", {"a.png": b"image"}, compression)
    with RawImages(tmp_path) as images, pytest.raises(InputError, match=r"a\.png is not stored or deflated"):
        images.read("a.png")


@pytest.mark.timeout(20)
def test_pipes_devices_and_loops_are_refused_or_reported_by_name(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    os.mkfifo(tmp_path / "images/pipe.png")
    (tmp_path / "images/device.png").symlink_to("/dev/zero")
    (tmp_path / "images/loop.png").symlink_to("loop.png")
    (tmp_path / "images_001").symlink_to("images_001")
    (tmp_path / "images_002").mkdir()
    (tmp_path / "images_002/images").symlink_to("..")
    with RawImages(tmp_path) as images:
        for name, message in (
            ("pipe", "not a regular file"),
            ("device", "not a regular file"),
            ("loop", "symbolic link"),
        ):
            with pytest.raises((InputError, OSError), match=message):
                images.read(f"{name}.png")
    path = tmp_path / "images_001.zip"
    os.mkfifo(path)
    with pytest.raises(InputError, match=r"images_001\.zip is not a regular file"):
        RawImages(tmp_path)
    for target in ("/dev/zero", "images_001.zip", "nowhere"):
        path.unlink()
        path.symlink_to(target)
        with pytest.raises(InputError, match=r"images_001\.zip is not a (regular file|complete zip archive)"):
            RawImages(tmp_path)


def test_a_mutated_archive_is_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "images_001.zip"
    content = zip_of(path, {"a.png": b"image", "é.png": b"image"})
    for at in range(len(content)):
        for value in (0xFF, content[at] ^ 8):
            path.write_bytes(content[:at] + bytes([value]) + content[at + 1 :])
            with suppress(InputError), RawImages(tmp_path) as images:
                assert images


@pytest.mark.parametrize("content", [b"", b"half an archive", b"PK\x03\x04" + bytes(100)])
def test_a_damaged_archive_is_reported(tmp_path: Path, content: bytes) -> None:
    with ZipFile(tmp_path / "images_001.zip", "w") as archive:
        archive.writestr("a.png", b"an image")
    (tmp_path / "images_002.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"images_002\.zip is not a complete zip archive"):
        RawImages(tmp_path)


def test_a_name_with_a_slash_is_a_path_in_the_folder(tmp_path: Path) -> None:
    name = "train/patient00001/study1/view1_frontal.jpg"
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_bytes(b"image")
    with RawImages(tmp_path) as images:
        assert name in images
        assert images.read(name) == b"image"
        assert "train/patient00001/study2/view1_frontal.jpg" not in images
        assert "view1_frontal.jpg" not in images
