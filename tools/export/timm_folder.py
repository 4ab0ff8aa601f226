"""A network as a folder that timm loads: `timm.create_model("local-dir:FOLDER", pretrained=True)`."""

from copy import deepcopy
from pathlib import Path

import timm
import torch
from timm.models import save_for_hf
from torch import Tensor, nn

from cxr.core.errors import InputError, first_lines
from cxr.core.files import atomic_write
from cxr.core.labels import CLASSES
from tools.export.metadata import LICENCE
from tools.output_file import check_output_folder
from tools.predict.ensemble import Ensemble
from tools.predict.output import NOT_CLINICAL

TOLERANCE = 1e-6  # of a logit, in float64
CARD = """---
library_name: timm
pipeline_tag: image-classification
license: {licence}
tags:
- image-classification
- timm
- chest-xray
- multi-label
---
# {name}

{purpose}

- Architecture: `{model}` of timm, {in_chans} input channel(s), {size} x {size} pixels
- Classes, one logit each, to which a sigmoid is applied: {classes}
- The probabilities are those of one network before calibration, without test-time augmentation and thresholds.
{untrained}
## Use

```python
import timm
import torch
from PIL import Image

model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()
data = timm.data.resolve_model_data_config(model)
transform = timm.data.create_transform(**data, is_training=False)
image = Image.open("chest.png").convert("{mode}")
with torch.inference_mode():
    probabilities = model(transform(image).unsqueeze(0)).sigmoid()
```
"""


def check_timm_folder(folder: Path) -> None:
    """Check that `folder` can be written.

    Raises:
        InputError: if it exists, or the folder that it is in is not writable.
    """
    if folder.exists() or folder.is_symlink():
        raise InputError(f"--timm {folder}: this exists; remove it, or give another folder")
    check_output_folder("--timm", folder.parent)


def write_timm_folder(ensemble: Ensemble, folder: Path) -> float:
    """Write the network of an ensemble of one to `folder`: `config.json`, `model.safetensors` and `README.md`.

    Returns:
        The largest difference of a logit between the network and what timm loads from the folder.

    Raises:
        InputError: if a timm model cannot express the ensemble, or timm loads another network. There is no folder then.
    """
    # safetensors refuses the channels-last layout.
    backbone = deepcopy(check_expressible(ensemble))
    backbone.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    with atomic_write(folder) as temporary:
        save_for_hf(
            backbone,
            str(temporary),
            # Not those of the weights that timm has for this architecture.
            model_config={"label_names": list(CLASSES), "pretrained_cfg": {"tag": "", "license": LICENCE.lower()}},
            safe_serialization=True,
            data_config=data_config(ensemble),
        )
        (temporary / "README.md").write_text(model_card(ensemble), encoding="utf-8")
        return compare_with_timm(ensemble, temporary)


def check_expressible(ensemble: Ensemble) -> nn.Module:
    """Return the timm model of the only network.

    Raises:
        InputError: if there are several networks, or the network is not a timm model alone.
    """
    if len(ensemble.classifiers) > 1:
        names = ", ".join(map(str, ensemble.files))
        raise InputError(f"--timm: a timm model is one network, and these are {len(ensemble.files)}: {names}; name one")
    (classifier,), (file,) = ensemble.classifiers, ensemble.files
    if classifier.attention is not None:
        raise InputError(
            f"--timm: {file} has an attention head (attention_pool), which timm does not have; export it without --timm"
        )
    return classifier.backbone


def data_config(ensemble: Ensemble) -> dict[str, object]:
    """Return the preprocessing in timm's terms: resized without keeping the aspect ratio, and normalised."""
    (classifier,) = ensemble.classifiers
    size = ensemble.image_size
    return {
        "input_size": (classifier.in_chans, size, size),
        "mean": tuple(classifier.mean.flatten().tolist()),
        "std": tuple(classifier.std.flatten().tolist()),
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "crop_mode": "squash",
    }


def model_card(ensemble: Ensemble) -> str:
    """Return the README.md of the folder: a model card with metadata that huggingface_hub reads."""
    (file,), (description,) = ensemble.files, ensemble.descriptions
    synthetic = "Trained on synthetic images: its probabilities are meaningless for real radiographs. "
    untrained = ", ".join(ensemble.untrained)
    return CARD.format(
        licence=LICENCE.lower(),
        name=file.stem,
        purpose="A classifier of frontal chest radiographs. " + synthetic * bool(ensemble.is_synthetic) + NOT_CLINICAL,
        model=description["model"],
        in_chans=description["in_chans"],
        size=ensemble.image_size,
        classes=", ".join(CLASSES),
        untrained=f"- Not trained, so that their logits are meaningless: {untrained}\n" * bool(untrained),
        mode="L" if description["in_chans"] == 1 else "RGB",
    )


def compare_with_timm(ensemble: Ensemble, folder: Path) -> float:
    """Return the largest difference of a logit between the network and what timm loads from `folder`.

    Raises:
        InputError: if timm cannot load it, or the difference is above `TOLERANCE`.
    """
    (classifier,), (file,) = ensemble.classifiers, ensemble.files
    # In float64: in float32, the memory layout and the order of the normalisation change the last bits.
    classifier = deepcopy(classifier).double()
    random = torch.Generator().manual_seed(0)
    images = torch.rand((2, 1, ensemble.image_size, ensemble.image_size), generator=random, dtype=torch.float64)
    try:
        loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval().double()
        with torch.inference_mode():
            found: Tensor = loaded((images - classifier.mean) / classifier.std)
            difference = float((found - classifier(images)).abs().max())
    except (RuntimeError, TypeError, AssertionError, ValueError) as error:
        raise InputError(f"--timm: timm cannot rebuild {file} from a folder: {first_lines(error)}") from None
    if not difference <= TOLERANCE:
        raise InputError(f"--timm: timm loads {file} with logits that differ by {difference:.1e}; no folder is kept")
    return difference
