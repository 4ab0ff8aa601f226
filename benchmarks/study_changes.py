"""Changes that the study compares: the classic recipe as baseline, and single changes to it."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from benchmarks.data import ROOT
from cxr.core.errors import InputError
from cxr.params import Params

Values = dict[str, Any]  # the content of params.yaml, sections nested


class Change(NamedTuple):
    """A change to the parameters of the baseline."""

    name: str
    params: Values  # changed parameters; a section may be partial
    reason: str


def preset(name: str) -> Values:
    """Load the parameters of `presets/NAME.yaml`."""
    return dict(yaml.safe_load((ROOT / f"presets/{name}.yaml").read_text(encoding="utf-8")))


MILD = preset("nih-official")["augment"]
LITE0, LITE1 = "tf_efficientnet_lite0", "tf_efficientnet_lite1"

ALL_TTA = {"hflip": True, "translate": 0.05, "scale": 0.05, "five_crop": 0.9}

BASELINE = Change("baseline", {}, "the classic recipe")
CONTROL = Change("other-seed", {"seeds": [2]}, "the same recipe: variation between seeds")
CHANGES = (
    CONTROL,
    Change(
        "two-seeds",
        {"seeds": [1, 2]},
        "an ensemble of two; the literature reports gains of 0.009 to 0.015 for three to six",
    ),
    Change("flip-views", {"tta": {"hflip": True}}, "TTA with a horizontal flip"),
    Change("shifted-views", {"tta": {"translate": 0.05, "scale": 0.05}}, "TTA with translated and scaled images"),
    Change(
        "five-crops",
        {"tta": {"five_crop": 0.9, "hflip": True}},
        "TTA with ten crops; the literature reports gains of up to 0.010",
    ),
    Change("all-views", {"tta": ALL_TTA}, "all TTA views"),
    Change(
        "two-seeds-all-views", {"seeds": [1, 2], "tta": ALL_TTA}, "whether the gains of an ensemble and of TTA add up"
    ),
    Change(
        "short-road",
        {
            "lr": 0.0001,
            "head_lr_factor": 10,
            "mixup_alpha": 0,
            "augment": MILD,
            "lr_schedule": "cosine",
            "warmup_epochs": 1,
        },
        "common fine-tuning practice, all at once",
    ),
    Change("no-mixup", {"mixup_alpha": 0}, "findings are small and may be hidden by mixing images"),
    Change("mild-augmentation", {"augment": MILD}, "the augmentation of presets/nih-official.yaml"),
    Change("low-lr", {"lr": 0.0003}, "0.001 may destroy pretrained features"),
    Change("lower-lr-fast-head", {"lr": 0.0001, "head_lr_factor": 10}, "a high learning rate for the new layer only"),
    Change("attention", {"attention_pool": True}, "findings occur in different regions"),
    Change("ema", {"ema_decay": 0.99}, "averaged weights are less noisy"),
    Change("focal", {"loss": {"focal_gamma": 2}}, "lower weight of easy negatives"),
    Change("class-weights", {"loss": {"max_pos_weight": 10}}, "higher weight of rare positives"),
    Change("label-smoothing", {"loss": {"label_smoothing": 0.1}}, "labels extracted from reports are noisy"),
    Change("prior-bias", {"prior_bias": True}, "the prevalences need not be learned"),
    Change("gradual-unfreezing", {"unfreeze_epochs": 1}, "early layers are kept until later layers fit"),
    Change("drop-path", {"drop_path_rate": 0.2}, "regularisation of the blocks"),
    Change("dropout", {"drop_rate": 0.3}, "regularisation of the last layer"),
    Change(
        "one-cosine-warmup",
        {"lr_schedule": "cosine", "warmup_epochs": 1},
        "smaller updates while the new head is random",
    ),
    Change("clip-norm", {"grad_clip_norm": 1}, "limits the update by a single batch"),
    Change("stage-lr-decay", {"layer_decay": 0.7}, "early layers need smaller updates"),
    Change("one-channel", {"in_chans": 1}, "the images are gray"),
    Change("lite1", {"models": [LITE1]}, "a larger network"),
    Change("lite0-and-lite1", {"models": [LITE0, LITE1]}, "an ensemble of two different networks"),
    Change("more-epochs", {"epochs": 12, "T_0": 12}, "whether the baseline is undertrained"),
)


def baseline_values(raw_dir: Path, weights_dir: Path, image_size: int, model: str, epochs: int) -> Values:
    """Return presets/nih-40k.yaml scaled down: a smaller model and image size, and a single cosine cycle."""
    return preset("nih-40k") | {
        "raw_dir": str(raw_dir.resolve()),
        "weights_dir": str(weights_dir.resolve()),
        "image_size": image_size,
        "models": [model],
        "epochs": epochs,
        "T_0": epochs,
        "batch_size": 32,
        "threads": 2,
    }


def merge(values: Values, changes: Values) -> Values:
    """Return `values` updated with `changes`, sections recursively."""
    return values | {
        name: merge(values.get(name, {}), value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }


def params_of(change: Change, baseline: Values) -> Params:
    """Return all parameters of the baseline with `change`.

    Raises:
        InputError: if they are not valid.
    """
    try:
        return Params.model_validate(merge(baseline, change.params))
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, each['loc']))} {each['msg']}".strip() for each in error.errors()]
        raise InputError(f"the change {change.name} is not valid: {'; '.join(problems)}") from None


def describe_change(change: Change) -> str:
    """Return the name, the parameters and the reason of a change, in one line."""
    params: Any = yaml.safe_dump(change.params, default_flow_style=True, sort_keys=False, width=math.inf)
    return f"{change.name}: `{params.strip()}`; {change.reason}"
