"""The model of the whole of `params.yaml`, for tools. No stage imports it: each reads the parameters of its package.

`python -m cxr.params` checks the file. DVC runs no stage whose own parameters are unchanged, so `dvc repro` alone does
not notice an unknown parameter.
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
