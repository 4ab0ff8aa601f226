"""DICOM files as the 8-bit pictures that networks are trained on. Terms and formulas: the DICOM standard, PS3.3 C.11.

This module needs pydicom, which `requirements-predict.txt` pins.
"""

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_modality_lut, apply_voi, apply_windowing

from cxr.images.decode import LARGEST

_FRONTAL = ("", "PA", "AP")
_MODALITIES = ("", "CR", "DX", "RG")
_CHEST = ("", "CHEST", "THORAX")
# The UID of the transfer syntax in which the whole file is deflated.
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_FAR = 1e12  # beyond what any window shows


def read_dicom(file: bytes) -> tuple[NDArray[np.uint8], list[str]]:
    """The picture of a DICOM file, uint8 [height, width] with high values bright, and what its header warns of.

    Values are rescaled (slope and intercept, or the modality table), then shown as the file's first VOI table or
    window says, from the darkest to the brightest value where it has neither; MONOCHROME1 is inverted.

    Raises:
        ValueError: where it is no DICOM file, not one gray picture, or compressed in a way that pydicom with Pillow
            cannot read, which is named.
    """
    if _DEFLATED in file:
        # pydicom would inflate it whatever it comes to: a file of 1 MB may hold 1 GB.
        raise ValueError("a DICOM file that is deflated as a whole: save it with another transfer syntax")
    try:
        dataset = dcmread(BytesIO(file))
        return _picture(dataset), _warnings(dataset)
    except InvalidDicomError as error:
        raise ValueError(f"not a DICOM file: {_first_line(error)}") from None
    except ValueError:
        raise
    except Exception as error:  # noqa: BLE001 (pydicom has no one class for what a damaged header leads to)
        raise ValueError(f"a broken DICOM file: {_first_line(error)}") from None


def _picture(dataset: Dataset) -> NDArray[np.uint8]:
    if "PixelData" not in dataset:
        raise ValueError("a DICOM file without a picture")
    if int(dataset.get("NumberOfFrames") or 1) != 1:
        raise ValueError(f"a DICOM file of {dataset.NumberOfFrames} frames, not of one picture")
    kind = dataset.get("PhotometricInterpretation", "missing")
    if kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise ValueError(f"its PhotometricInterpretation is {kind}, not MONOCHROME1 or MONOCHROME2")
    if dataset.Rows * dataset.Columns > LARGEST:
        raise ValueError(f"{dataset.Columns} x {dataset.Rows} pixels are too many for a radiograph")
    shown = _shown(_values(dataset), dataset)
    if kind == "MONOCHROME1":
        shown = 1 - shown
    return (shown.clip(0, 1) * 255).round().astype(np.uint8)


def _values(dataset: Dataset) -> NDArray[Any]:
    try:
        return apply_modality_lut(dataset.pixel_array, dataset)
    except Exception as error:  # noqa: BLE001 (nor for pixels that cannot be decoded)
        syntax = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
        how = f"{syntax.name}: " if syntax is not None else ""
        raise ValueError(f"its pixels cannot be read: {how}{_first_line(error)}") from None


def _shown(values: NDArray[Any], dataset: Dataset) -> NDArray[np.float64]:
    """Brightness from 0 to 1, before any inversion."""
    if dataset.get("VOILUTSequence"):
        bits = dataset.VOILUTSequence[0].LUTDescriptor[2]
        # A table is looked up by whole numbers, and rescaling made them floats.
        return apply_voi(np.round(values).astype(np.int32), dataset) / (2.0**bits - 1)
    if dataset.get("WindowCenter") is not None and dataset.get("WindowWidth") is not None:
        # What the window makes of the extremes is its range: it may show more or less than the values have.
        low, high = apply_windowing(np.array([-_FAR, _FAR]), dataset)
        shown = apply_windowing(values, dataset)
    else:
        shown, low, high = values.astype(np.float64), values.min(), values.max()
    return (shown - low) / ((high - low) or 1)


def _warnings(dataset: Dataset) -> list[str]:
    """What says that this is another picture than a frontal chest X-ray, where the header says anything."""
    return [
        f"{name} is {value}"
        for name, known in (("ViewPosition", _FRONTAL), ("Modality", _MODALITIES), ("BodyPartExamined", _CHEST))
        if (value := str(dataset.get(name) or "").strip().upper()) not in known
    ]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
