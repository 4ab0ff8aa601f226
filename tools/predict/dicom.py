"""DICOM files as 8-bit gray images. Terms and formulas follow the DICOM standard, PS3.3 C.11.

This module needs pydicom (`requirements-predict.txt`).
"""

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_modality_lut, apply_voi, apply_windowing

from cxr.images.decode import MAX_PIXELS

# Header values without a warning; "" stands for a missing value.
_EXPECTED = {
    "ViewPosition": ("", "PA", "AP"),
    "Modality": ("", "CR", "DX", "RG"),
    "BodyPartExamined": ("", "CHEST", "THORAX"),
}
# UID of the transfer syntax that compresses the whole data set.
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_BEYOND_WINDOW = 1e12  # larger than any pixel value


def read_dicom(file: bytes) -> tuple[NDArray[np.uint8], list[str]]:
    """Return the image of a DICOM file, uint8 [height, width] with dense tissue bright, and warnings from its header.

    Pixel values are rescaled (modality LUT, or slope and intercept), then mapped by the first VOI LUT or window of the
    file, or by their range if it has neither; MONOCHROME1 is inverted.

    Raises:
        ValueError: if it is not a DICOM file, does not hold exactly one gray image, or uses a compression that pydicom
            with Pillow does not support.
    """
    if _DEFLATED in file:
        # pydicom inflates without a limit: a file of 1 MB may expand to 1 GB.
        raise ValueError("deflated DICOM files are not supported: save it with another transfer syntax")
    try:
        dataset = dcmread(BytesIO(file))
        return _to_gray(dataset), _header_warnings(dataset)
    except InvalidDicomError as error:
        raise ValueError(f"not a DICOM file: {_first_line(error)}") from None
    except ValueError:
        raise
    except Exception as error:  # noqa: BLE001 (pydicom raises exceptions of many classes for damaged headers)
        raise ValueError(f"a broken DICOM file: {_first_line(error)}") from None


def _to_gray(dataset: Dataset) -> NDArray[np.uint8]:
    if "PixelData" not in dataset:
        raise ValueError("a DICOM file without an image")
    if int(dataset.get("NumberOfFrames") or 1) != 1:
        raise ValueError(f"a DICOM file with {dataset.NumberOfFrames} frames instead of one")
    photometric = dataset.get("PhotometricInterpretation", "missing")
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise ValueError(f"PhotometricInterpretation is {photometric}, not MONOCHROME1 or MONOCHROME2")
    if dataset.Rows * dataset.Columns > MAX_PIXELS:
        raise ValueError(f"{dataset.Columns} x {dataset.Rows} pixels are too many for a radiograph")
    brightness = _apply_voi(_modality_values(dataset), dataset)
    if photometric == "MONOCHROME1":
        brightness = 1 - brightness
    return (brightness.clip(0, 1) * 255).round().astype(np.uint8)


def _modality_values(dataset: Dataset) -> NDArray[Any]:
    try:
        return apply_modality_lut(dataset.pixel_array, dataset)
    except Exception as error:  # noqa: BLE001 (and for pixels that it cannot decode)
        syntax = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
        prefix = f"{syntax.name}: " if syntax is not None else ""
        raise ValueError(f"its pixels cannot be read: {prefix}{_first_line(error)}") from None


def _apply_voi(values: NDArray[Any], dataset: Dataset) -> NDArray[np.float64]:
    """Return the brightness, 0 to 1 inside the VOI, before MONOCHROME1 is inverted."""
    if dataset.get("VOILUTSequence"):
        bits = dataset.VOILUTSequence[0].LUTDescriptor[2]
        # LUTs are indexed by integers, and rescaling has made floats.
        return apply_voi(np.round(values).astype(np.int32), dataset) / (2.0**bits - 1)
    if dataset.get("WindowCenter") is not None and dataset.get("WindowWidth") is not None:
        # The output range of the window, which may be wider or narrower than that of the values.
        low, high = apply_windowing(np.array([-_BEYOND_WINDOW, _BEYOND_WINDOW]), dataset)
        brightness = apply_windowing(values, dataset)
    else:
        brightness, low, high = values.astype(np.float64), values.min(), values.max()
    return (brightness - low) / ((high - low) or 1)


def _header_warnings(dataset: Dataset) -> list[str]:
    return [
        f"{name} is {value}"
        for name, expected in _EXPECTED.items()
        if (value := str(dataset.get(name) or "").strip().upper()) not in expected
    ]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
