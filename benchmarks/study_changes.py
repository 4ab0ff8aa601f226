"""What the study tries: the classic recipe at the study's size, and one change to it at a time."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from benchmarks.data import ROOT
from cxr.core.errors import InputError
from cxr.params import Params

Values = dict[str, Any]  # parameters as params.yaml has them, sections within


class Change(NamedTuple):
    """One thing to try."""

    name: str
    params: Values  # what differs from the baseline; of a section, only what differs in it
    why: str


def preset(name: str) -> Values:
    """The parameters of `presets/NAME.yaml`."""
    return dict(yaml.safe_load((ROOT / f"presets/{name}.yaml").read_text(encoding="utf-8")))


MILD = preset("nih-official")["augment"]
LITE0, LITE1 = "tf_efficientnet_lite0", "tf_efficientnet_lite1"

ALL_VIEWS = {"hflip": True, "translate": 0.05, "scale": 0.05, "five_crop": 0.9}

BASELINE = Change("baseline", {}, "the classic recipe")
CONTROL = Change("other-seed", {"seeds": [2]}, "the same recipe: how far chance alone moves the figure")
CHANGES = (
    CONTROL,
    Change("two-seeds", {"seeds": [1, 2]}, "an ensemble of two; the field reports 0.009 to 0.015 for three to six"),
    Change("flip-views", {"tta": {"hflip": True}}, "each image also mirrored when it is predicted"),
    Change("shifted-views", {"tta": {"translate": 0.05, "scale": 0.05}}, "shifted and scaled views are averaged"),
    Change("five-crops", {"tta": {"five_crop": 0.9, "hflip": True}}, "ten views: ten crops gained up to 0.010"),
    Change("all-views", {"tta": ALL_VIEWS}, "both kinds at once, and mirrored"),
    Change("two-seeds-all-views", {"seeds": [1, 2], "tta": ALL_VIEWS}, "do an ensemble and views add up?"),
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
        "what the field supports, all at once",
    ),
    Change("no-mixup", {"mixup_alpha": 0}, "findings are small; half of another image may hide them"),
    Change("mild-augmentation", {"augment": MILD}, "the strengths of presets/nih-official.yaml"),
    Change("low-lr", {"lr": 0.0003}, "0.001 may wash pretrained features out"),
    Change("lower-lr-fast-head", {"lr": 0.0001, "head_lr_factor": 10}, "only the new layer learns fast"),
    Change("attention", {"attention_pool": True}, "each finding has places of its own"),
    Change("ema", {"ema_decay": 0.99}, "averaged weights are less noisy"),
    Change("focal", {"loss": {"focal_gamma": 2}}, "easy negatives count less"),
    Change("class-weights", {"loss": {"max_pos_weight": 10}}, "rare positives count more"),
    Change("label-smoothing", {"loss": {"label_smoothing": 0.1}}, "the labels are read from reports, and often wrong"),
    Change("prior-bias", {"prior_bias": True}, "no steps are spent on learning how rare each class is"),
    Change("gradual-unfreezing", {"unfreeze_epochs": 1}, "early features are kept until later ones fit"),
    Change("drop-path", {"drop_path_rate": 0.2}, "regularises the blocks"),
    Change("dropout", {"drop_rate": 0.3}, "regularises the last layer"),
    Change(
        "one-cosine-warmup", {"lr_schedule": "cosine", "warmup_epochs": 1}, "the new head spoils less of the backbone"
    ),
    Change("clip-norm", {"grad_clip_norm": 1}, "no step is led far away by one batch"),
    Change("stage-lr-decay", {"layer_decay": 0.7}, "early features need less change than late ones"),
    Change("one-channel", {"in_chans": 1}, "the images are gray: is anything lost?"),
    Change("lite1", {"models": [LITE1]}, "a somewhat larger network"),
    Change("lite0-and-lite1", {"models": [LITE0, LITE1]}, "an ensemble of two different networks"),
    Change("more-epochs", {"epochs": 12, "T_0": 12}, "is the baseline trained to its end?"),
)


def baseline_values(raw_dir: Path, weights_dir: Path, image_size: int, model: str, epochs: int) -> Values:
    """presets/nih-40k.yaml at the study's size: one cosine cycle, at whose end a checkpoint is best."""
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


def changed(values: Values, changes: Values) -> Values:
    """`values` with `changes`, section by section."""
    return values | {
        name: changed(values.get(name, {}), value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }


def params_of(change: Change, baseline: Values) -> Params:
    """All parameters of `change`; InputError where they are none that params.yaml could have."""
    try:
        return Params.model_validate(changed(baseline, change.params))
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, each['loc']))} {each['msg']}".strip() for each in error.errors()]
        raise InputError(f"the change {change.name} cannot be used: {'; '.join(problems)}") from None


def described(change: Change) -> str:
    """A change in one line: its name, its parameters, and its reason."""
    params: Any = yaml.safe_dump(change.params, default_flow_style=True, sort_keys=False, width=math.inf)
    return f"{change.name}: `{params.strip()}`; {change.why}"
