"""Parameters of the stage train."""

from typing import Literal, Self

from pydantic import Field, model_validator

from cxr.core.params import FolderPath, Probability, Rate, Strict
from cxr.models.params import BatchSize, Deterministic, Models, Seeds, Threads


class Augment(Strict):
    """Random augmentation, with new parameters for each image in each epoch. 0 turns a transformation off."""

    hflip: Probability = Field(description="probability of a horizontal flip")
    degrees: float = Field(ge=0, le=180, description="maximum rotation in either direction, degrees")
    translate: float = Field(ge=0, lt=1, description="maximum translation along each axis, fraction of the image size")
    scale: float = Field(ge=0, lt=1, description="maximum relative change of scale")
    shear: float = Field(ge=0, lt=90, description="maximum horizontal shear in either direction, degrees")
    brightness: float = Field(ge=0, lt=1, description="maximum relative change of brightness")
    contrast: float = Field(ge=0, lt=1, description="maximum relative change of contrast")
    random_erasing: Probability = Field(description="probability that a rectangle is erased")


class Loss(Strict):
    """Loss function. With max_pos_weight 1, focal_gamma 0 and label_smoothing 0 it is binary cross-entropy."""

    max_pos_weight: float = Field(
        ge=1, description="upper limit of pos_weight, the ratio of negatives to positives of each class; 1 turns it off"
    )
    focal_gamma: float = Field(ge=0, description="gamma of the focal loss; 0 turns it off")
    label_smoothing: float = Field(ge=0, lt=1, description="fraction by which labels move towards 0.5")


class TrainParams(Strict):
    """Parameters of the stage train."""

    models: Models
    seeds: Seeds
    weights: Literal["imagenet", "none"] = Field(description="initial weights")
    weights_dir: FolderPath = Field(description="folder with pretrained weights, MODEL.safetensors")
    in_chans: Literal[1, 3] = Field(description="input channels; the gray image is repeated to fill three")
    epochs: int = Field(ge=1, le=1_000_000, description="number of epochs")
    batch_size: BatchSize
    patience: int = Field(
        ge=0, description="stop after this many epochs without a better validation AUROC; 0 turns early stopping off"
    )
    lr: float = Field(gt=0, description="initial learning rate of each cosine cycle")
    head_lr_factor: float = Field(gt=0, description="learning rate of the head, relative to lr")
    layer_decay: float = Field(
        gt=0, le=1, description="learning rate of each backbone stage, relative to that of the next stage"
    )
    unfreeze_epochs: int = Field(
        ge=0,
        description="epochs after which the next backbone stage is unfrozen, last to first; 0 trains all at once",
    )
    weight_decay: float = Field(ge=0, description="weight decay of AdamW")
    grad_clip_norm: float = Field(ge=0, description="maximum norm of the gradient; 0 turns clipping off")
    lr_schedule: Literal["cosine_restarts", "cosine"] = Field(
        description="cosine annealing with warm restarts, updated every epoch, or one cosine, updated every step"
    )
    warmup_epochs: int = Field(ge=0, description="epochs of linear warm-up")
    T_0: int = Field(ge=1, le=1_000_000, description="epochs until the first warm restart")
    T_mult: int = Field(ge=1, le=1_000_000, description="factor by which each cycle is longer than the one before")
    ema_decay: Rate = Field(description="decay of the exponential moving average of the weights; 0 turns it off")
    drop_rate: Rate = Field(description="dropout before the last layer")
    drop_path_rate: Rate = Field(description="stochastic depth of the last block; it falls linearly to 0 at the first")
    attention_pool: bool = Field(
        description="pool features by an attention map for each class, not by the model's head"
    )
    prior_bias: bool = Field(
        description="initialise the bias of the last layer with the log-odds of each class in train"
    )
    loss: Loss
    amp_dtype: Literal["auto", "float16", "bfloat16", "float32"] = Field(
        description="data type of automatic mixed precision; auto is float16 on a GPU and float32 on a CPU"
    )
    mixup_alpha: float = Field(ge=0, description="alpha of mixup; 0 turns mixup off")
    augment: Augment
    compile: bool = Field(description="compile the network with torch.compile")
    devices: int = Field(
        ge=1, le=1024, description="number of GPUs that train each network; results depend on the number"
    )
    threads: Threads
    deterministic: Deterministic

    @model_validator(mode="after")
    def _check_warmup(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs ({self.warmup_epochs}) must be less than epochs ({self.epochs})")
        return self
