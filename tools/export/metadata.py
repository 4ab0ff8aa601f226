"""What an exported file says of itself: all that a system needs to feed it, and to read what it answers."""

import json
from pathlib import Path
from typing import Any

from cxr.core.files import sha256
from cxr.core.labels import CLASSES
from cxr.models.model_file import read_description
from tools.predict.ensemble import Ensemble
from tools.predict.output import NOT_CLINICAL, thresholds_of

LICENCE = "MIT"
IN_WORDS = (
    "A frontal chest X-ray as one gray picture, dense tissue bright. Colour becomes luma (ITU-R 601-2, as Pillow's "
    "convert('L')); of 16-bit pixels the highest eight of the bits that the picture uses are kept; DICOM is shown as "
    "its rescale, its first VOI table or window, and MONOCHROME1 say. It is resized to {size} x {size} pixels whatever "
    "its proportions, antialiased and bilinear (as Pillow's BILINEAR), and fed as it is, uint8 from 0 to 255: scaling "
    "and normalisation are in the graph."
)


def describe(ensemble: Ensemble) -> dict[str, str]:
    """The file's metadata: text as it is, all else as JSON, null where it is not known.

    Raises:
        InputError: where a network's file is gone.
    """
    decisions = ensemble.decisions
    about: dict[str, Any] = {
        "note": NOT_CLINICAL,
        "license": LICENCE,
        "classes": list(CLASSES),
        "image_size": ensemble.image_size,
        "preprocessing": IN_WORDS.format(size=ensemble.image_size),
        "preprocessing_steps": preprocessing_steps(ensemble.image_size),
        "views": [view._asdict() for view in ensemble.views],
        "members": [describe_member(file) for file in ensemble.files],
        "calibrated": decisions is not None,
        "untrained": list(ensemble.untrained),
        "threshold_rule": decisions.rule if decisions else None,
        "thresholds": thresholds_of(ensemble),
        "synthetic": ensemble.is_synthetic,
    }
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in about.items()}


def preprocessing_steps(size: int) -> dict[str, Any]:
    """`IN_WORDS` for a program."""
    return {
        "photometric_interpretation": "MONOCHROME2",
        "colour": "ITU-R 601-2 luma",
        "sixteen_bit": "highest eight of the bits in use",
        "resize": {
            "height": size,
            "width": size,
            "keeps_proportions": False,
            "filter": "triangle",
            "antialias": True,
            # For the same bits: whole numbers, rounded half up after each pass.
            "passes": ["rows", "columns"],
            "bits_of_weights": 14,
            "bits_between_passes": 16,
        },
        "input": {"dtype": "uint8", "layout": ["batch", "row", "column"], "lowest": 0, "highest": 255},
    }


def describe_member(file: Path) -> dict[str, Any]:
    """Which network this is; nothing of the patients that it has seen, and no folder."""
    about = read_description(file)
    kept = {name: about.get(name) for name in ("model", "seed", "in_chans", "attention_pool")}
    return {"name": file.stem, "sha256": sha256(file), **kept}
