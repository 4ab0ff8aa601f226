"""DICOM files as 8-bit gray images. Terms and formulas follow the DICOM standard, PS3.3 C.11.

This module needs the packages of `requirements-predict.txt`.
"""

from io import BytesIO
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from pydicom import Dataset, config, dcmread
from pydicom.encaps import generate_frames
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.pixels import apply_modality_lut, apply_voi, apply_windowing
from pydicom.uid import RLELossless

from cxr.core.errors import first_lines
from cxr.images.limits import check_size
from tools.predict.dicom_codecs import jpeg_size, select_decoder

# Values that violate the standard occur in many files. Those that matter here are checked, pydicom warns of all.
config.settings.reading_validation_mode = config.IGNORE

# Values of the header that describe one gray image.
_SUPPORTED = {
    "NumberOfFrames": (1,),
    "SamplesPerPixel": (1,),
    "PhotometricInterpretation": ("MONOCHROME1", "MONOCHROME2"),
    "BitsAllocated": (8, 16, 32),
}
_DEFAULTS = {"NumberOfFrames": 1}
# Of these, the first value is used.
_FINITE = ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth")
# Header values without a warning; "" stands for a missing value.
_EXPECTED = {
    "ViewPosition": ("", "PA", "AP"),
    "Modality": ("", "CR", "DX", "RG"),
    "BodyPartExamined": ("", "CHEST", "THORAX"),
}
# UID of the transfer syntax that compresses the whole data set.
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_RLE_HEADER = 1024  # bytes; more than the 64 of its header and the padding of its segments


def read_dicom(file: bytes) -> tuple[NDArray[np.uint8], list[str]]:
    """Return the image of a DICOM file, uint8 [height, width] with dense tissue bright, and warnings from its header.

    Pixel values are rescaled (modality LUT, or slope and intercept), then mapped by the first VOI LUT or window of the
    file, or by their range without padding if it has neither; MONOCHROME1 is inverted.

    Raises:
        ValueError: if it is not a DICOM file, does not hold exactly one gray image within the limits of
            `cxr.images.limits`, has rescaling or window values that are not finite, or uses a compression that
            `tools.predict.dicom_codecs` does not support. For damaged files, pydicom raises exceptions of many classes.
    """
    if _DEFLATED in file:
        # pydicom inflates without a limit: a file of 1 MB may expand to 1 GB.
        raise ValueError("deflated DICOM files are not supported: save it with another transfer syntax")
    try:
        dataset = dcmread(BytesIO(file))
    except InvalidDicomError as error:
        raise ValueError(f"not a DICOM file: {first_lines(error)}") from None
    _check_header(dataset)
    # Overflows give values that are not finite, which are reported.
    with np.errstate(all="ignore"):
        return _to_gray(dataset), _header_warnings(dataset)


def _check_header(dataset: Dataset) -> None:
    """Check what the file declares about its image, before it is decoded."""
    if "PixelData" not in dataset:
        raise ValueError("a DICOM file without an image")
    for name, values in _SUPPORTED.items():
        value = dataset.get(name) or _DEFAULTS.get(name)
        if value not in values:
            raise ValueError(f"{name} is {value or 'missing'}, not {' or '.join(map(str, values))}")
    check_size(dataset.get("Columns") or 0, dataset.get("Rows") or 0)
    for name in _FINITE:
        value = dataset.get(name)
        first = value[0] if isinstance(value, MultiValue) else value
        if first not in (None, "") and not isfinite(first):
            raise ValueError(f"{name} is {first}, not a finite number")
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        _check_compressed(dataset)


def _check_compressed(dataset: Dataset) -> None:
    """Compare the compressed image with the header: decoding takes the memory for the size that the former declares."""
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    if dataset.file_meta.TransferSyntaxUID == RLELossless:
        # The format declares no size, and decodes to up to 64 times its bytes. A valid image is hardly compressed then.
        declared = dataset.Rows * dataset.Columns * dataset.BitsAllocated // 8
        if len(frame) > 2 * declared + _RLE_HEADER:
            raise ValueError(f"{len(frame):,} bytes of compressed pixels are too many for its {declared:,} bytes")
        return
    _check_jp2_boxes(frame)
    found, expected = _compressed_size(frame), (dataset.Columns, dataset.Rows, 1)
    if found not in (None, expected):
        raise ValueError(f"its compressed image has width, height and samples {found}, its header {expected}")


def _compressed_size(frame: bytes) -> tuple[int, int, int] | None:
    """Return the width, height and samples that a compressed image declares; None if it is of another format."""
    for plugin in (JpegImageFile, Jpeg2KImageFile):
        try:
            image = plugin(BytesIO(frame))
        except SyntaxError:
            continue
        return *image.size, len(image.getbands())
    return jpeg_size(frame)


def _check_jp2_boxes(frame: bytes) -> None:
    """Check the lengths of the boxes of a JP2 file: pydicom never ends at one of length 0 before the pixels."""
    position = 12 if frame.startswith(b"\x00\x00\x00\x0cjP  ") else len(frame)
    while position < len(frame) and frame[position + 4 : position + 8] != b"jp2c":
        length = int.from_bytes(frame[position : position + 4], "big")
        if not length:
            raise ValueError("damaged: a box of its JPEG 2000 header has no length")
        position += length


def _to_gray(dataset: Dataset) -> NDArray[np.uint8]:
    stored = _stored_values(dataset)
    brightness = _apply_voi(_modality_values(stored, dataset), dataset, _is_padding(stored, dataset))
    if not np.isfinite(brightness).all():
        raise ValueError("its rescaling and window give values that are not finite")
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        np.subtract(1, brightness, out=brightness)
    brightness.clip(0, 1, out=brightness)
    brightness *= 255
    return brightness.round(out=brightness).astype(np.uint8)


def _stored_values(dataset: Dataset) -> NDArray[Any]:
    """Return the pixels as they are stored, of an integer type, [height, width]."""
    try:
        select_decoder(dataset)
        pixels: NDArray[Any] = dataset.pixel_array
    except Exception as error:  # noqa: BLE001 (pydicom raises exceptions of many classes)
        syntax = dataset.file_meta.TransferSyntaxUID.name
        raise ValueError(f"its pixels cannot be read: {syntax}: {first_lines(error)}") from None
    if pixels.shape != (dataset.Rows, dataset.Columns):
        # pydicom returns further frames that the data hold beyond NumberOfFrames.
        raise ValueError(f"its pixels are {pixels.shape}, and its header declares ({dataset.Rows}, {dataset.Columns})")
    return pixels


def _is_padding(stored: NDArray[Any], dataset: Dataset) -> NDArray[np.bool_]:
    """Return the mask of the padding around the image, PS3.3 C.7.5.1.1.2."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, np.bool_)
    limit = dataset.get("PixelPaddingRangeLimit")
    # Some files declare signed values as unsigned ones, so they are taken modulo the range of the pixels' type.
    ends = [np.int64(end).astype(stored.dtype) for end in (value, value if limit is None else limit)]
    return (min(ends) <= stored) & (stored <= max(ends))


def _modality_values(stored: NDArray[Any], dataset: Dataset) -> NDArray[Any]:
    # As int64, in which pydicom's arithmetic with int8 and int16 does not overflow.
    values = apply_modality_lut(stored.astype(np.int64), dataset)
    if values.min() == values.max() and stored.min() != stored.max():
        raise ValueError(
            "its rescaling makes all pixels equal: see RescaleSlope, RescaleIntercept, ModalityLUTSequence"
        )
    return values


def _apply_voi(values: NDArray[Any], dataset: Dataset, is_padding: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the brightness, 0 to 1 inside the VOI, before MONOCHROME1 is inverted."""
    if dataset.get("VOILUTSequence"):
        return _apply_voi_lut(values, dataset)
    if dataset.get("WindowCenter") is not None and dataset.get("WindowWidth") is not None:
        # The output range of the window, which may be wider or narrower than that of the values.
        low, high = apply_windowing(np.array([-np.inf, np.inf]), dataset)
        brightness = apply_windowing(values, dataset)
    else:
        shown = values if is_padding.all() else values[~is_padding]
        brightness, low, high = values.astype(np.float64), float(shown.min()), float(shown.max())
    brightness -= low
    brightness /= (high - low) or 1
    return brightness


def _apply_voi_lut(values: NDArray[Any], dataset: Dataset) -> NDArray[np.float64]:
    bits = dataset.VOILUTSequence[0].LUTDescriptor[2]
    if not 8 <= bits <= 16:  # PS3.3 C.11.2.1.1
        raise ValueError(f"its VOI LUT has {bits} bits, not 8 to 16")
    # LUTs are indexed by integers, and rescaling has made floats.
    indices = np.round(values).clip(-(2**31), 2**31).astype(np.int64)
    return apply_voi(indices, dataset) / (2.0**bits - 1)


def _header_warnings(dataset: Dataset) -> list[str]:
    return [
        f"{name} is {value}"
        for name, expected in _EXPECTED.items()
        if (value := str(dataset.get(name) or "").strip().upper()) not in expected
    ]
