"""DICOM files with extreme pixels and windows, hostile header values and mutated bytes, given to the reader."""

import io
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from cxr.images.decode import image_errors
from tests.fixtures.radiographs import compress
from tests.fuzz.harness import fuzz, outcome
from tests.fuzz.mutations import mutated
from tools.predict.dicom import read_dicom
from tools.predict.reading import Failure, decode_image

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # pydicom warns of values that it accepts

SIDES = (6, 8)
FLAT = np.random.default_rng(0).integers(0, 2**12, SIDES, np.uint16)
TYPES = [np.uint8, np.int8, np.uint16, np.int16]
# Values that a header may hold for each attribute: of a wrong size, sign or type, or that no image has.
NUMBERS = [
    "",
    "0",
    "-1",
    "1",
    "nan",
    "inf",
    "-inf",
    "1e308",
    "-1e308",
    "1e-320",
    "1e400",
    "x",
    "1\\2",
    "1\\x",
    "\\",
    "99999999",
]
SIZES = [0, 1, 2, 7, 9, 8192, 32767, 32768, 65535]
ATTRIBUTES: dict[str, list[Any]] = {
    **dict.fromkeys(("Rows", "Columns", "SamplesPerPixel", "PlanarConfiguration", "PixelRepresentation"), SIZES),
    **{name: [0, 1, 7, 8, 9, 12, 15, 16, 17, 24, 32, 64, 65535] for name in ("BitsAllocated", "BitsStored", "HighBit")},
    **dict.fromkeys(("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"), NUMBERS),
    **{name: [0, 1, 255, 2**15 - 1] for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")},
    "NumberOfFrames": ["", "0", "-1", "1", "2", "2147483647", "x", "1\\1", "1.5"],
    "PhotometricInterpretation": ["MONOCHROME1", "MONOCHROME2", "RGB", "PALETTE COLOR", "", "X", "MONOCHROME2\\RGB"],
    "VOILUTFunction": ["", "LINEAR", "LINEAR_EXACT", "SIGMOID", "X"],
    "PixelData": [b"", b"\0", bytes(64 * 1024)],
    **{name: ["", "PA", "\0", "é", "A\\B", "x" * 99] for name in ("ViewPosition", "Modality", "BodyPartExamined")},
    "SpecificCharacterSet": ["", "ISO_IR 192", "X", "ISO 2022 IR 149\\X"],
}


def dicom(pixels: NDArray[Any], syntax: UID = ExplicitVRLittleEndian, **attributes: Any) -> bytes:
    """Return a DICOM file; `attributes` replace what describes the pixels."""
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    bits = 8 * pixels.dtype.itemsize
    described = {
        "Rows": pixels.shape[0], "Columns": pixels.shape[1], "SamplesPerPixel": 1, "BitsAllocated": bits,
        "BitsStored": bits, "HighBit": bits - 1, "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PhotometricInterpretation": "MONOCHROME2", "PixelData": pixels.tobytes(),
    }  # fmt: skip
    for name, value in (described | attributes).items():
        if isinstance(value, str):
            set_text(dataset, name, value.encode())
        else:
            setattr(dataset, name, value)
    dataset["PixelData"].VR = "OW"
    dataset["PixelData"].is_undefined_length = dataset.file_meta.TransferSyntaxUID.is_compressed
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def set_text(dataset: pydicom.Dataset, name: str, text: bytes) -> None:
    """Set an attribute to a text that pydicom may consider invalid, and writes unchanged."""
    tag = Tag(name)
    text += b" " * (len(text) % 2)
    dataset[tag] = RawDataElement(
        tag, dictionary_VR(tag), len(text), text, 0, is_implicit_VR=False, is_little_endian=True
    )


def packed(form: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray((FLAT // 16).astype(np.uint8)).save(stream, form)
    return encapsulate([stream.getvalue()])


def lut() -> pydicom.Sequence:
    item = pydicom.Dataset()
    item.LUTDescriptor, item.LUTData = [4096, 0, 16], np.arange(4096, dtype=np.uint16).tobytes()
    item["LUTData"].VR = "OW"
    return pydicom.Sequence([item])


FILES = {
    "16-bit": dicom(FLAT, WindowCenter="2048", WindowWidth="4096", RescaleSlope="2", RescaleIntercept="-100"),
    "padded": dicom(FLAT.astype(np.int16), PixelPaddingValue=-(2**15), PhotometricInterpretation="MONOCHROME1"),
    "8-bit": dicom(FLAT.astype(np.uint8)),
    "lut": dicom(FLAT, VOILUTSequence=lut()),
    "jpeg": dicom(FLAT.astype(np.uint8), JPEGBaseline8Bit, PixelData=packed("JPEG")),
    "jpeg2000": dicom(FLAT.astype(np.uint8), JPEG2000Lossless, PixelData=packed("JPEG2000")),
    "rle": dicom(FLAT.astype(np.uint8), RLELossless, PixelData=encapsulate([bytes(64)])),
    "big frame": dicom(FLAT.astype(np.uint8), JPEGBaseline8Bit, PixelData=packed("JPEG"), Rows=8000, Columns=8000),
}


@image_errors()
def read(file: bytes) -> tuple[NDArray[np.uint8], list[str]]:
    """Return the result of `read_dicom`; its caller takes every exception for an error of the file."""
    return read_dicom(file)


def check(file: bytes) -> NDArray[np.uint8] | None:
    """Check the property for a file; return its image."""
    image = outcome(read, file, errors=(ValueError,))
    if image is None:
        return None
    gray, notes = image
    assert gray.dtype == np.uint8
    assert gray.ndim == 2
    assert gray.size > 0
    assert all(isinstance(note, str) and note.isprintable() for note in notes)
    return gray


@fuzz(300)
@example(FILES["jpeg2000"].replace(b"\x14ftypjp2", b"\0ftypjp2"))  # a box of length 0
@given(mutated(FILES))
def test_a_dicom_file(file: bytes) -> None:
    check(file)


def attributes() -> st.SearchStrategy[dict[str, Any]]:
    one = st.sampled_from([(name, value) for name, values in ATTRIBUTES.items() for value in values])
    return st.lists(one, min_size=1, max_size=4).map(dict)


@fuzz(300)
@example({"Rows": 1}, FLAT)  # more frames than one
@given(attributes(), st.sampled_from([FLAT, FLAT.astype(np.int16), FLAT.astype(np.uint8)]))
def test_hostile_values_of_the_header(values: dict[str, Any], pixels: NDArray[Any]) -> None:
    check(dicom(pixels, **values))


def lossless() -> dict[str, bytes]:
    """Return a DICOM file for each compression that GDCM decodes, which takes a process for each."""
    with TemporaryDirectory() as folder:
        plain, packed = Path(folder, "a.dcm"), Path(folder, "b.dcm")
        plain.write_bytes(dicom(FLAT))
        return {name: compress(plain, packed, name).read_bytes() for name in (JPEGLosslessSV1, JPEGLSLossless)}


@fuzz(20)
@given(mutated(lossless()))
def test_a_dicom_file_that_gdcm_decodes(file: bytes) -> None:
    check(file)


@fuzz(200)
@given(mutated(FILES))
def test_a_dicom_file_for_prediction(file: bytes) -> None:
    image = outcome(lambda: decode_image(file, Path("a.dcm"), 32, with_display=True))
    assert image is not None
    if isinstance(image, Failure):
        assert image.reason.strip()


DECIMALS = st.floats(-1e5, 1e5, width=32).map(lambda value: float(f"{value:.6g}"))


@st.composite
def windows(draw: st.DrawFn) -> dict[str, Any]:
    """Return no window, or one of the three functions of PS3.3 C.11.2."""
    if draw(st.booleans()):
        return {}
    function = draw(st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]))
    return {"WindowCenter": draw(DECIMALS), "WindowWidth": abs(draw(DECIMALS)) + 1.5, "VOILUTFunction": function}


@fuzz(300)
@given(
    st.sampled_from(TYPES),
    st.lists(st.sampled_from([0.0, 1.0, 0.5]) | st.floats(0, 1), min_size=6, max_size=6),
    DECIMALS,
    DECIMALS,
    windows(),
    st.sampled_from(["MONOCHROME1", "MONOCHROME2"]),
)
def test_pixels_are_those_of_the_standard_in_float64(
    kind: type[np.integer[Any]],
    levels: list[float],
    slope: float,
    intercept: float,
    window: dict[str, Any],
    photometric: str,
) -> None:
    limits = np.iinfo(kind)
    stored = np.array([[round(limits.min + level * (limits.max - limits.min)) for level in levels]], kind)
    file = dicom(
        stored, RescaleSlope=slope, RescaleIntercept=intercept, PhotometricInterpretation=photometric, **window
    )
    values = stored.astype(np.float64) * slope + intercept
    gray = check(file)
    if np.ptp(values):
        expected = brightness(values, window)
        expected = 1 - expected if photometric == "MONOCHROME1" else expected
        assert gray is not None
        np.testing.assert_allclose(gray, expected * 255, atol=0.51 + 1e-6 * np.abs(values).max())
        assert window or (gray.min(), gray.max()) == (0, 255)


def brightness(values: NDArray[np.float64], window: dict[str, Any]) -> NDArray[np.float64]:
    """Return what a display shows of `values`, 0 to 1: PS3.3 C.11.2.1.2 and C.11.2.1.3, or the range of the values."""
    if not window:
        return (values - values.min()) / np.ptp(values)
    center, width = window["WindowCenter"], window["WindowWidth"]
    if window["VOILUTFunction"] == "SIGMOID":
        return 1 / (1 + np.exp((-4 * (values - center) / width).clip(-700, 700)))
    if window["VOILUTFunction"] == "LINEAR":
        center, width = center - 0.5, width - 1
    return ((values - center) / width + 0.5).clip(0, 1)
