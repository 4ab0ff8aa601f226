from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import pytest

from cxr.core.errors import InputError
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


@pytest.mark.parametrize("content", [b"", b"half an archive", b"PK\x03\x04" + bytes(100)])
def test_a_damaged_archive_is_reported(tmp_path: Path, content: bytes) -> None:
    with ZipFile(tmp_path / "images_001.zip", "w") as archive:
        archive.writestr("a.png", b"an image")
    (tmp_path / "images_002.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"images_002\.zip is not a readable zip archive"):
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
