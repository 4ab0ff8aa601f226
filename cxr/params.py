"""The parameters: one typed, strict model of `params.yaml`, and the part of it that each stage is handed."""

import math
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from cxr.errors import InputError, run_as_script

PARAMS_FILE = Path("params.yaml")


class Strict(BaseModel):
    """No unknown key, no missing key, no silent conversion, no change after reading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _distinct(values: list[Any]) -> list[Any]:
    repeated = sorted({value for value in values if values.count(value) > 1})
    if repeated:
        raise ValueError(f"each value once, but repeated: {', '.join(map(str, repeated))}")
    return values


Probability = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
NetworkName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]+$")]

# What more than one stage reads is described once.
RawDir = Annotated[
    Path, Field(strict=False, description="folder of the images and tables, in NIH's or CheXpert's layout")
]
DataSeed = Annotated[Seed, Field(description="seed of sampling and of splitting")]
Models = Annotated[
    list[NetworkName],
    Field(min_length=1, description="timm networks; the ensemble is models x seeds"),
    AfterValidator(_distinct),
]
Seeds = Annotated[
    list[Seed],
    Field(min_length=1, description="seeds of training; one network for each model and seed"),
    AfterValidator(_distinct),
]
BatchSize = Annotated[int, Field(ge=2, description="images in one step")]
Threads = Annotated[int, Field(ge=1, description="threads of a CPU run; its bits depend on them")]
Deterministic = Annotated[bool, Field(description="only operations that repeat bit for bit")]


class Sample(Strict):
    """Which images take part."""

    size: int = Field(ge=1, description="distinct images to draw; all, where there are fewer")
    exclude: list[str] = Field(description="names of images to leave out")


class CheXpert(Strict):
    """How CheXpert's labels are meant, where raw_dir holds it; NIH's layout needs none of this."""

    uncertain: Literal["unknown", "negative", "positive"] = Field(
        description="what its -1 means; an unknown label is neither learned nor measured"
    )
    unmentioned: Literal["unknown", "negative"] = Field(description="what an empty field means")
    lateral: bool = Field(description="whether its lateral views take part")


class Split(Strict):
    """How patients are dealt into train, val and test."""

    method: Literal["patient", "official"] = Field(description="our own split by patient, or the data set's own")
    train: Fraction = Field(description="share of the images; not used by the official split")
    val: Fraction = Field(description="share of the images; with the official split, of those not in test")
    test: Fraction = Field(description="share of the images; not used by the official split")

    @model_validator(mode="after")
    def _shares_add_up(self) -> Self:
        total = self.train + self.val + self.test
        if not math.isclose(total, 1, abs_tol=1e-6):
            raise ValueError(f"train, val and test are shares of one whole, but add up to {total:g}")
        return self


class Augment(Strict):
    """How each training image is varied; every number is drawn anew for each image and epoch."""

    flip: Probability = Field(description="probability of a horizontal flip")
    rotation: float = Field(ge=0, le=180, description="largest rotation either way, degrees")
    translation: float = Field(ge=0, lt=1, description="largest shift either way, share of the side")
    scale: float = Field(ge=0, lt=1, description="largest change of size either way, share")
    shear: float = Field(ge=0, lt=90, description="largest shear either way, degrees")
    brightness: float = Field(ge=0, lt=1, description="largest change of brightness either way, share")
    contrast: float = Field(ge=0, lt=1, description="largest change of contrast either way, share")
    erasing: Probability = Field(description="probability that a rectangle is erased")


class Loss(Strict):
    """What training makes small; with all three off it is binary cross-entropy."""

    positive_weight_cap: float = Field(
        ge=1, description="most that a positive weighs: negatives / positives of its class up to here; 1 is none"
    )
    focal_gamma: float = Field(ge=0, description="how much less an image counts that is told right already; 0 is none")
    label_smoothing: float = Field(ge=0, lt=1, description="how far labels are moved from 0 and 1 towards 0.5")


class Views(Strict):
    """Test-time augmentation: views of each image whose probabilities are averaged; with all off, the image itself."""

    flip: bool = Field(description="each view also mirrored")
    shift: float = Field(
        ge=0, lt=0.5, description="shifts left, right, up and down by this share of the side; 0 is none"
    )
    scale: float = Field(ge=0, lt=0.5, description="smaller and larger by this share; 0 is none")
    five_crops: float = Field(
        ge=0, lt=1, description="side of five crops (corners and centre, in place of the whole), share of it; 0 is none"
    )


class Threshold(Strict):
    """How the threshold of each class is chosen on validation."""

    rule: Literal["f1", "youden", "sensitivity"] = Field(
        description="highest F1, highest sensitivity + specificity, or the highest threshold of a wanted sensitivity"
    )
    sensitivity: float = Field(gt=0, le=1, description="the wanted sensitivity; used by the rule of that name only")


class SampleParams(Strict):
    """What the stage sample reads."""

    raw_dir: RawDir
    data_seed: DataSeed
    sample: Sample
    chexpert: CheXpert


class SplitParams(Strict):
    """What the stage split reads."""

    data_seed: DataSeed
    split: Split


class ResizeParams(Strict):
    """What the stage resize reads."""

    raw_dir: RawDir
    image_size: int = Field(ge=32, le=1024, description="side of the square images that the networks see, pixels")


class TrainParams(Strict):
    """What the stage train reads."""

    models: Models
    seeds: Seeds
    weights: Literal["imagenet", "none"] = Field(description="what the networks start from")
    weights_dir: Path = Field(strict=False, description="folder of pretrained weights, MODEL.safetensors")
    channels: Literal[1, 3] = Field(description="input channels: the gray image alone, or three times")
    epochs: int = Field(ge=1, description="passes over the training images")
    batch_size: BatchSize
    patience: int = Field(ge=0, description="epochs without a better one after which training ends; 0 is never")
    lr: float = Field(gt=0, description="highest learning rate: at the start of each cosine cycle")
    head_lr_factor: float = Field(gt=0, description="the last layer's learning rate, times lr")
    stage_lr_decay: float = Field(
        gt=0, le=1, description="learning rate of each of the backbone's stages, times that of the stage after it"
    )
    unfreeze_epochs: int = Field(
        ge=0,
        description="epochs until each next stage of the backbone trains too, the last first; 0 is all at once",
    )
    weight_decay: float = Field(ge=0, description="AdamW's weight decay")
    clip_norm: float = Field(ge=0, description="largest norm of a step's gradients; 0 is any")
    schedule: Literal["restarts", "cosine"] = Field(
        description="cosine cycles by whole epochs, or one cosine to the end by steps"
    )
    warmup_epochs: int = Field(ge=0, description="epochs in which the learning rate rises to lr, step by step")
    restart_epochs: int = Field(ge=1, description="length of the first cosine cycle, epochs (T_0)")
    restart_factor: int = Field(ge=1, description="how much longer each cycle is than the last (T_mult)")
    ema: Share = Field(description="decay of the average of the weights that is validated and kept; 0 is none")
    dropout: Share = Field(description="probability that a feature is dropped before the last layer")
    drop_path: Share = Field(description="probability that the last block is skipped (stochastic depth)")
    attention: bool = Field(description="whether each class pools the places of an image by an attention of its own")
    prior_bias: bool = Field(description="whether the last layer's bias starts at each class's log-odds in train")
    loss: Loss
    mixed_precision: Literal["auto", "float16", "bfloat16", "float32"] = Field(
        description="arithmetic of the network; auto is float16 on a GPU, float32 on a CPU"
    )
    mixup: float = Field(ge=0, description="alpha of mixup's Beta distribution; 0 is none")
    augment: Augment
    compile: bool = Field(description="whether torch.compile translates the network: minutes at first, then faster")
    devices: int = Field(ge=1, description="GPUs that train each network together; its bits depend on their number")
    threads: Threads
    deterministic: Deterministic

    @model_validator(mode="after")
    def _warmup_ends(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs} leaves none of {self.epochs} epochs to train")
        return self


class EvaluateParams(Strict):
    """What the stage evaluate reads."""

    raw_dir: RawDir
    models: Models
    seeds: Seeds
    batch_size: BatchSize
    views: Views
    threshold: Threshold
    calibration_bins: int = Field(ge=2, description="bins of the calibration error and the reliability curves")
    resamples: int = Field(ge=100, le=100_000, description="draws of patients that the intervals are made from")
    threads: Threads
    deterministic: Deterministic


class Params(SampleParams, SplitParams, ResizeParams, TrainParams, EvaluateParams):
    """The whole of `params.yaml`."""


Section = TypeVar("Section", bound=Strict)


def read_params(section: type[Section], path: Path = PARAMS_FILE) -> Section:
    """Read all of `path`, check all of it, and return the part that `section` names.

    Raises:
        InputError: naming every problem of the file at once.
    """
    try:
        whole = Params.model_validate(_load_yaml(path))
    except ValidationError as error:
        problems = "\n".join(f"  {_explain(problem)}" for problem in error.errors())
        raise InputError(f"{path} cannot be used:\n{problems}") from None
    return section.model_validate({name: getattr(whole, name) for name in section.model_fields})


class _Yaml12Loader(yaml.SafeLoader):
    """YAML 1.2's scalars, as DVC writes them: `1e-05` is a number and `off` is a word; a key is there once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Yaml12Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":float", ":int"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
):
    _Yaml12Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def _load_yaml(path: Path) -> Any:
    try:
        with path.open(encoding="utf-8") as file:
            return yaml.load(file, _Yaml12Loader)  # noqa: S506 (a SafeLoader)
    except FileNotFoundError:
        raise InputError(f"there is no {path} here; run from the top folder of the repository") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not YAML: {error}") from None


def _explain(problem: Any) -> str:
    name = ".".join(map(str, problem["loc"])) or "the file"
    if problem["type"] == "extra_forbidden":
        return f"{name}: no such parameter{_suggestion(name)}"
    if problem["type"] == "missing":
        return f"{name}: missing"
    said, found = problem["msg"].removeprefix("Value error, "), problem["input"]
    return f"{name}: {said}" + ("" if isinstance(found, dict) else f" (it is {found!r})")


def _suggestion(name: str) -> str:
    close = get_close_matches(name, _parameter_names(Params), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _parameter_names(model: type[BaseModel], prefix: str = "") -> list[str]:
    names = []
    for name, field in model.model_fields.items():
        names.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names += _parameter_names(field.annotation, f"{prefix}{name}.")
    return names


def main() -> None:
    """Check the whole file: an unknown parameter concerns no stage, so DVC alone would run none and not see it."""
    read_params(Params)


if __name__ == "__main__":
    run_as_script(main)
