"""DICOM files given to `tools.predict`; pydicom writes every file of these tests."""

import io
import struct
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from cxr.core.errors import InputError
from tests.fixtures.radiographs import chest, compress, dicom, photo
from tools.predict.reading import Failure, InputImage, read_image


def read(path: Path, size: int) -> NDArray[np.uint8]:
    image = read_image(path, size)
    assert isinstance(image, InputImage), image
    return image.pixels


def reason(path: Path) -> str:
    failure = read_image(path, 32)
    assert isinstance(failure, Failure)
    return failure.reason


def ramp(lowest: int, highest: int, dtype: str = "uint16") -> NDArray[Any]:
    return np.linspace(lowest, highest, 32 * 32).round().astype(dtype).reshape(32, 32)


def test_a_dicom_file_gives_the_same_image_with_and_without_suffix(tmp_path: Path) -> None:
    pixels = chest(32)
    for name in ("a.dcm", "a"):
        path = dicom(tmp_path / name, pixels, WindowCenter=128, WindowWidth=256)
        assert np.array_equal(read(path, 32), pixels)


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_rescale_window_and_monochrome1_follow_the_standard(tmp_path: Path, kind: str) -> None:
    values = ramp(0, 4095)
    path = dicom(
        tmp_path / "a.dcm", values, BitsStored=12, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=[2000, 50],
        WindowWidth=[3000, 9], PhotometricInterpretation=kind,
    )  # fmt: skip
    # PS3.3 C.11.2.1.2.1, of the first window.
    shown = ((values * 2.0 - 1000 - (2000 - 0.5)) / (3000 - 1) + 0.5).clip(0, 1)
    expected = 255 * (1 - shown if kind == "MONOCHROME1" else shown)
    assert np.abs(read(path, 32) - expected).max() <= 0.51


@pytest.mark.parametrize(
    ("lowest", "highest", "dtype"),
    [
        (100, 3000, "uint16"), (-2000, 500, "int16"), (7, 7, "uint16"), (-32768, 32767, "int16"), (-128, 127, "int8"),
        (-(2**31), 2**31 - 1, "int32"), (0, 2**32 - 1, "uint32"),
    ],
)  # fmt: skip
def test_without_a_window_the_range_of_the_values_is_displayed(
    tmp_path: Path, lowest: int, highest: int, dtype: str
) -> None:
    values = ramp(lowest, highest, dtype)
    expected = 255 * (values - float(lowest)) / max(highest - lowest, 1)
    assert np.abs(read(dicom(tmp_path / "a.dcm", values), 32) - expected).max() <= 0.51


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("dtype", "padding", "tags"),
    [
        ("int16", [-32768], {"PixelPaddingValue": -32768}),
        ("int16", [-32768], {"PixelPaddingValue": 32768}),  # declared as unsigned, which occurs
        ("int8", [-128], {"PixelPaddingValue": -128}),
        ("uint16", [60000, 65535], {"PixelPaddingValue": 65535, "PixelPaddingRangeLimit": 60000}),
        ("int16", [-32768, -30000], {"PixelPaddingValue": -32768, "PixelPaddingRangeLimit": -30000}),
    ],
)
def test_padding_does_not_count_for_the_range_of_the_values(
    tmp_path: Path, kind: str, dtype: str, padding: list[int], tags: dict[str, int]
) -> None:
    pydicom = pytest.importorskip("pydicom")
    lowest, highest = (0 if dtype == "uint16" else -100), 120
    values = ramp(lowest, highest, dtype)
    values[16], values[17] = padding[0], padding[-1]
    path = dicom(tmp_path / "a.dcm", values, PhotometricInterpretation=kind)
    dataset = pydicom.dcmread(path)
    for name, value in tags.items():
        dataset.add_new(name, "SS" if value < 0 else "US", value)
    dataset.save_as(path)
    shown = ((values - float(lowest)) / (highest - lowest)).clip(0, 1)
    expected = 255 * (1 - shown if kind == "MONOCHROME1" else shown)
    assert np.abs(read(path, 32) - expected).max() <= 0.51


def test_an_image_of_padding_alone_is_read(tmp_path: Path) -> None:
    assert read(dicom(tmp_path / "a.dcm", np.zeros((32, 32), np.int16), PixelPaddingValue=0), 32).max() == 0


@pytest.mark.parametrize("name", ["RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e400"])
def test_numbers_that_are_not_finite_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    config = pytest.importorskip("pydicom.config")
    for mode in ("reading_validation_mode", "writing_validation_mode"):
        monkeypatch.setattr(config.settings, mode, config.IGNORE)
    numbers = {"RescaleSlope": 1, "RescaleIntercept": 0, "WindowCenter": 128, "WindowWidth": 256, name: value}
    path = dicom(tmp_path / "a.dcm", ramp(0, 255, "uint8"), **numbers)
    assert reason(path) == f"{name} is {value}, not a finite number"


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"WindowCenter": 128, "WindowWidth": 0}, "Window Width must be greater than"),
        ({"WindowCenter": 128, "WindowWidth": -9}, "Window Width must be greater than"),
        ({"RescaleSlope": 0, "RescaleIntercept": 5}, "its rescaling makes all pixels equal"),
        ({"RescaleSlope": 1, "RescaleIntercept": "1e300"}, "its rescaling makes all pixels equal"),
        ({"RescaleSlope": "1e307", "RescaleIntercept": 0, "BitsStored": 8}, "values that are not finite"),
    ],
)
def test_a_rescaling_or_window_that_turns_every_image_black_is_refused(
    tmp_path: Path, attributes: dict[str, Any], message: str
) -> None:
    assert message in reason(dicom(tmp_path / "a.dcm", ramp(0, 255, "uint8"), **attributes))


def test_a_modality_lut_covers_the_whole_range_of_signed_pixels(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", "SS", [0, -32768, 16])  # 0 stands for 2**16 entries
    item.add_new("LUTData", "OW", np.arange(2**16, dtype=np.uint16).tobytes())
    values = ramp(-32768, 32767, "int16")
    path = dicom(tmp_path / "a.dcm", values, ModalityLUTSequence=pydicom.Sequence([item]))
    assert np.abs(read(path, 32) - 255 * (values + 32768.0) / 65535).max() <= 0.51


def test_a_voi_lut_is_applied(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    values, table = ramp(0, 255), (np.arange(256) ** 2 // 16).astype(np.uint16)
    item = pydicom.Dataset()
    item.LUTDescriptor, item.LUTData = [256, 0, 12], table.tobytes()
    path = dicom(
        tmp_path / "a.dcm",
        values,
        VOILUTSequence=pydicom.Sequence([item]),
        WindowCenter=9,
        WindowWidth=9,
        RescaleSlope=1,
        RescaleIntercept=0,
    )
    assert np.abs(read(path, 32) - table[values] / 4095 * 255).max() <= 0.51


SYNTAXES = {
    "JPEG Lossless, process 14": "1.2.840.10008.1.2.4.57",
    "JPEG Lossless, SV1": "1.2.840.10008.1.2.4.70",
    "JPEG-LS": "1.2.840.10008.1.2.4.80",
    "JPEG 2000": "1.2.840.10008.1.2.4.90",
    "RLE": "1.2.840.10008.1.2.5",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SYNTAXES)
@pytest.mark.parametrize(("dtype", "bits"), [("uint8", 8), ("uint16", 12), ("uint16", 16), ("int16", 16)])
def test_a_compressed_image_has_the_bits_of_the_uncompressed_one(
    tmp_path: Path, name: str, dtype: str, bits: int
) -> None:
    pydicom = pytest.importorskip("pydicom")
    from tools.predict.dicom_codecs import select_decoder  # noqa: PLC0415 (pydicom may be missing)

    lowest = -(2 ** (bits - 1)) if dtype == "int16" else 0
    noise = np.random.default_rng(0).integers(0, 9, (48, 32))
    values = (np.linspace(lowest, lowest + 2**bits - 9, 48 * 32).reshape(48, 32) + noise).astype(dtype)
    plain = dicom(tmp_path / "a.dcm", values, BitsStored=bits)
    packed = compress(plain, tmp_path / "b.dcm", SYNTAXES[name])
    dataset = pydicom.dcmread(packed)
    assert dataset.file_meta.TransferSyntaxUID == SYNTAXES[name]
    assert packed.read_bytes().count(values.tobytes()) == 0
    select_decoder(dataset)
    assert dataset.pixel_array.dtype == values.dtype
    assert np.array_equal(dataset.pixel_array, values)
    assert np.array_equal(read(packed, 32), read(plain, 32))


@pytest.mark.slow
@pytest.mark.parametrize("name", SYNTAXES)
def test_a_truncated_compressed_image_is_reported_in_one_line(tmp_path: Path, name: str) -> None:
    pydicom = pytest.importorskip("pydicom")
    packed = compress(dicom(tmp_path / "a.dcm", ramp(0, 65535)), tmp_path / "b.dcm", SYNTAXES[name])
    dataset = pydicom.dcmread(packed)
    frame = next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1))
    dataset.PixelData = pydicom.encaps.encapsulate([frame[: len(frame) // 2]])
    dataset.save_as(packed)
    found = reason(packed)
    assert "its pixels cannot be read" in found
    assert "\n" not in found


@pytest.mark.parametrize("name", ["JPEG Lossless, SV1", "JPEG-LS"])
def test_a_lossless_image_of_another_size_than_the_header_declares_is_not_decoded(tmp_path: Path, name: str) -> None:
    pydicom = pytest.importorskip("pydicom")
    path = compress(dicom(tmp_path / "a.dcm", ramp(0, 65535)), tmp_path / "b.dcm", SYNTAXES[name])
    dataset = pydicom.dcmread(path)
    dataset.Rows = dataset.Columns = 16
    dataset.save_as(path)
    assert "width, height and samples (32, 32, 1), its header (16, 16, 1)" in reason(path)


@pytest.mark.slow
def test_a_decoder_that_is_killed_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = compress(dicom(tmp_path / "a.dcm", chest(32)), tmp_path / "b.dcm", SYNTAXES["JPEG-LS"])
    script = tmp_path / "abort.py"
    script.write_text("import os; os.abort()", encoding="utf-8")
    monkeypatch.setattr("tools.predict.dicom_codecs._SCRIPT", script)
    assert "the compressed pixels are damaged or incomplete" in reason(path)


def test_an_embedded_jpeg_is_decoded_and_an_unsupported_syntax_is_reported(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    stream = io.BytesIO()
    Image.fromarray(chest(32)).save(stream, "JPEG", quality=95)
    packed = pydicom.encaps.encapsulate([stream.getvalue()])
    path = dicom(
        tmp_path / "a.dcm", chest(32), PixelData=packed, syntax=pydicom.uid.JPEGBaseline8Bit,
        WindowCenter=128, WindowWidth=256,
    )  # fmt: skip
    assert np.array_equal(read(path, 32), np.asarray(Image.open(stream)))
    path = dicom(tmp_path / "b.dcm", chest(32), PixelData=packed, syntax=pydicom.uid.MPEG2MPML)
    assert "its pixels cannot be read: MPEG2" in reason(path)
    assert "is not supported: save it uncompressed" in reason(path)


def encapsulated(path: Path, image: Image.Image, form: str, header: int, **options: Any) -> Path:
    """Write an image into a DICOM file whose header declares `header` pixels a side."""
    pydicom = pytest.importorskip("pydicom")
    stream = io.BytesIO()
    image.save(stream, form, **options)
    syntax = pydicom.uid.JPEGBaseline8Bit if form == "JPEG" else pydicom.uid.JPEG2000Lossless
    packed = pydicom.encaps.encapsulate([stream.getvalue()])
    return dicom(path, np.zeros((header, header), np.uint8), PixelData=packed, syntax=syntax)


@pytest.mark.parametrize(
    ("form", "options"), [("JPEG", {}), ("JPEG2000", {"no_jp2": True}), ("JPEG2000", {"no_jp2": False})]
)
def test_a_compressed_image_larger_than_the_header_declares_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, options: dict[str, Any]
) -> None:
    pydicom = pytest.importorskip("pydicom")
    path = encapsulated(tmp_path / "a.dcm", Image.new("L", (4000, 4000)), form, 64, **options)
    monkeypatch.setattr(pydicom.Dataset, "pixel_array", property(lambda _: pytest.fail("decoded")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "width, height and samples (4000, 4000, 1), its header (64, 64, 1)" in reason(path)


def test_a_compressed_colour_image_declared_as_gray_is_refused(tmp_path: Path) -> None:
    path = encapsulated(tmp_path / "a.dcm", Image.new("RGB", (64, 64)), "JPEG", 64)
    assert "samples (64, 64, 3), its header (64, 64, 1)" in reason(path)


def test_an_rle_image_is_decoded_and_one_of_too_many_bytes_is_not(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    random = np.random.default_rng(0).integers(0, 2**16, (32, 32), np.uint16)
    dataset = pydicom.dcmread(dicom(tmp_path / "a.dcm", random))
    dataset.compress(pydicom.uid.RLELossless)  # which adds bytes to random pixels
    dataset.save_as(tmp_path / "b.dcm")
    assert np.array_equal(read(tmp_path / "a.dcm", 32), read(tmp_path / "b.dcm", 32))
    bomb = struct.pack("<16L", 1, 64, *[0] * 14) + b"\x81\0" * 100_000  # decodes to 12.8 MB
    packed = pydicom.encaps.encapsulate([bomb])
    path = dicom(tmp_path / "c.dcm", ramp(0, 255, "uint8"), PixelData=packed, syntax=pydicom.uid.RLELossless)
    assert "200,064 bytes of compressed pixels are too many for its 1,024 bytes" in reason(path)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"SamplesPerPixel": 3, "PlanarConfiguration": 0, "PixelData": bytes(3072)}, "SamplesPerPixel is 3, not 1"),
        ({"SamplesPerPixel": None}, "SamplesPerPixel is missing, not 1"),
        ({"BitsAllocated": 1, "BitsStored": 1, "PixelData": bytes(128)}, "BitsAllocated is 1, not 8 or 16 or 32"),
        ({"PhotometricInterpretation": None}, "PhotometricInterpretation is missing, not MONOCHROME1 or MONOCHROME2"),
        ({"Rows": 60_000, "Columns": 60_000}, "60,000 x 60,000 pixels are too many for a radiograph"),
        ({"Rows": 1, "Columns": 20_001}, "20,001 x 1 pixels are too many for a radiograph"),
        ({"Rows": None}, "32 x 0 pixels: an empty image"),
        ({"NumberOfFrames": 10**9}, "NumberOfFrames is 1000000000, not 1"),
    ],
)
def test_a_header_that_declares_no_single_gray_image_is_refused_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attributes: dict[str, Any], message: str
) -> None:
    pydicom = pytest.importorskip("pydicom")
    path = dicom(tmp_path / "a.dcm", ramp(0, 255, "uint8"), **attributes)
    monkeypatch.setattr(pydicom.Dataset, "pixel_array", property(lambda _: pytest.fail("decoded")))
    assert reason(path).startswith(message)


def test_other_dicom_files_get_a_warning_or_a_reason(tmp_path: Path) -> None:
    def warnings(**attributes: Any) -> tuple[str, ...]:
        image = read_image(dicom(tmp_path / "a.dcm", chest(32), **attributes), 32)
        assert isinstance(image, InputImage)
        return image.warnings

    assert (
        warnings(ViewPosition="PA", Modality="DX", BodyPartExamined="CHEST")
        == warnings()
        == warnings(ViewPosition="")
        == ()
    )
    assert warnings(ViewPosition="LL") == ("ViewPosition is LL",)
    assert warnings(ViewPosition="LATERAL", Modality="CT") == ("ViewPosition is LATERAL", "Modality is CT")
    two = np.concatenate([chest(32), chest(32)]).tobytes()
    for attributes, message in (
        ({"NumberOfFrames": 2, "PixelData": two}, "NumberOfFrames is 2, not 1"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "is PALETTE COLOR, not MONOCHROME1"),
        ({"PixelData": b"12"}, "its pixels cannot be read"),
    ):
        assert message in reason(dicom(tmp_path / "b.dcm", chest(32), **attributes))
    (tmp_path / "c.dcm").write_bytes(b"nothing of the kind")
    assert "not a DICOM file" in reason(tmp_path / "c.dcm")


def test_a_dicom_file_without_an_image_or_that_is_deflated_is_reported(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    path = dicom(tmp_path / "a.dcm", chest(32))
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.save_as(path)
    assert reason(path) == "a DICOM file without an image"
    syntax = pydicom.uid.DeflatedExplicitVRLittleEndian
    path = dicom(tmp_path / "b.dcm", np.zeros((4096, 4096), np.uint16), syntax=syntax)
    assert path.stat().st_size < 100_000
    assert "deflated DICOM files" in reason(path)


@pytest.mark.filterwarnings("ignore")  # pydicom warns of what it fixes
@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_of_any_kind_is_read_or_reported(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "a"
    if data.draw(st.booleans()):
        dicom(path, chest(32), WindowCenter=128, WindowWidth=256, RescaleSlope=1, RescaleIntercept=0)
    else:
        kind = data.draw(st.sampled_from(["PNG", "JPEG"]))
        Image.fromarray(photo()).save(path, format=kind)
    file = bytearray(path.read_bytes())
    for position in data.draw(st.lists(st.integers(0, min(len(file), 900) - 1), min_size=1, max_size=4)):
        file[position] = data.draw(st.integers(0, 255))
    path.write_bytes(file[: data.draw(st.integers(len(file) // 2, len(file)))])
    found = read_image(path, 32)
    assert found.reason if isinstance(found, Failure) else found.pixels.shape == (32, 32)


def test_without_pydicom_the_error_names_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    monkeypatch.delitem(sys.modules, "tools.predict.dicom", raising=False)
    (tmp_path / "a").write_bytes(bytes(128) + b"DICM")
    with pytest.raises(InputError, match=r"pip install -r requirements-predict\.txt"):
        read_image(tmp_path / "a", 32)
