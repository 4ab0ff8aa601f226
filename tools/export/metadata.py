"""The metadata of an exported file: how to prepare its input and read its outputs."""

import json
from pathlib import Path
from typing import Any

from cxr.core.files import sha256
from cxr.core.labels import CLASSES
from cxr.models.model_file import read_description
from tools.predict.ensemble import Ensemble
from tools.predict.output import NOT_CLINICAL

LICENCE = "MIT"
PREPROCESSING = (
    "Input: one frontal chest radiograph in gray, dense tissue bright. Convert colour to luma (ITU-R 601-2, Pillow's "
    "convert('L')). Of 16-bit pixels, keep the highest eight of the bits that the image uses. Apply the rescale, the "
    "first VOI LUT or window, and MONOCHROME1 of DICOM files. Resize to {size} x {size} pixels without keeping the "
    "aspect ratio, antialiased and bilinear (Pillow's BILINEAR). Pass uint8 values from 0 to 255: scaling and "
    "normalisation are part of the graph."
)


def build_metadata(ensemble: Ensemble) -> dict[str, str]:
    """Return the metadata: strings as they are, other values as JSON, with null for unknown values.

    Raises:
        InputError: if a model file no longer exists.
    """
    decisions = ensemble.decisions
    values: dict[str, Any] = {
        "note": NOT_CLINICAL,
        "license": LICENCE,
        "classes": list(CLASSES),
        "image_size": ensemble.image_size,
        "preprocessing": PREPROCESSING.format(size=ensemble.image_size),
        "preprocessing_steps": preprocessing_steps(ensemble.image_size),
        "tta_views": [view._asdict() for view in ensemble.views],
        "members": [member_metadata(file) for file in ensemble.files],
        "calibrated": decisions is not None,
        "untrained": list(ensemble.untrained),
        "threshold_rule": decisions.rule if decisions else None,
        "thresholds": ensemble.thresholds,
        "synthetic": ensemble.is_synthetic,
    }
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}


def preprocessing_steps(size: int) -> dict[str, Any]:
    """Return `PREPROCESSING` in a machine-readable form."""
    return {
        "photometric_interpretation": "MONOCHROME2",
        "colour": "ITU-R 601-2 luma",
        "sixteen_bit": "highest eight of the bits in use",
        "resize": {
            "height": size,
            "width": size,
            "keep_aspect_ratio": False,
            "filter": "triangle",
            "antialias": True,
            # For bit-identical pixels: fixed-point arithmetic, rounded half up after each pass.
            "passes": ["rows", "columns"],
            "weight_bits": 14,
            "intermediate_bits": 16,
        },
        "input": {"dtype": "uint8", "layout": ["batch", "row", "column"], "min": 0, "max": 255},
    }


def member_metadata(file: Path) -> dict[str, Any]:
    """Return name, hash and architecture of a model file, without its folder and the patients in its description."""
    description = read_description(file)
    architecture = {name: description.get(name) for name in ("model", "seed", "in_chans", "attention_pool")}
    return {"name": file.stem, "sha256": sha256(file), **architecture}
