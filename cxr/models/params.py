"""Parameters that the stages train and evaluate have in common."""

from typing import Annotated

from pydantic import Field

from cxr.core.params import Distinct, Seed

ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]+$")]
Models = Annotated[
    list[ModelName],
    Field(min_length=1, description="timm models; the ensemble has one member for each model and seed"),
    Distinct,
]
Seeds = Annotated[list[Seed], Field(min_length=1, description="training seeds"), Distinct]
BatchSize = Annotated[int, Field(ge=2, le=1_000_000, description="images per batch at most, summed over all devices")]
Threads = Annotated[
    int, Field(ge=1, le=1024, description="CPU threads of PyTorch; results on a CPU depend on the number")
]
Deterministic = Annotated[
    bool, Field(description="use deterministic operations only, so that a run can be repeated bit for bit")
]
