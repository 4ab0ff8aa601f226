"""The model of the complete `params.yaml`, for tools. Stages import the parameters of their own package instead.

`python -m cxr.params` checks the file. `dvc repro` alone does not detect an unknown parameter, since DVC skips stages
whose own parameters are unchanged.
"""

from cxr.core.errors import run_as_script
from cxr.core.params import Strict, read_params
from cxr.datasets.params import SampleParams, SplitParams
from cxr.evaluation.params import EvaluateParams
from cxr.images.params import ResizeParams
from cxr.training.params import TrainParams

STAGES: dict[str, type[Strict]] = {
    "sample": SampleParams,
    "split": SplitParams,
    "resize": ResizeParams,
    "train": TrainParams,
    "evaluate": EvaluateParams,
}


class Params(SampleParams, SplitParams, ResizeParams, TrainParams, EvaluateParams):
    """All parameters of `params.yaml`."""


def main() -> None:
    """Check `params.yaml`."""
    read_params(Params)


if __name__ == "__main__":
    run_as_script(main)
