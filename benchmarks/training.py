"""Speed of the training step with different settings, on one batch that is already on the device.

On a GPU: efficientnet_b3 at 300 px, batches of 192, with float16 and bfloat16, with and without deterministic
operations and compilation. On a CPU: a small model with float32, also with the channels-first layout. `--profile`
prints the operations that take most of the time of 3 steps. Each line is printed when it is known.

Run: `python -m benchmarks.training` (3 minutes on a GPU, 5 on two cores). `--toy` tests it with a tiny model.
"""

import cxr.core.cpu  # noqa: F401 (must precede the import of numerical libraries)

# isort: split
import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.data import ROOT, write_params
from benchmarks.input import TOY, Case
from benchmarks.timing import print_machine, print_times, synchronize, time_alternating
from cxr.core.params import read_params
from cxr.models.classifier import Architecture, build_classifier
from cxr.models.device import init_device
from cxr.training.params import TrainParams
from cxr.training.trainer import Trainer

GPU_CASE = Case("efficientnet_b3", 3, 300, 192, 20)
CPU_CASE = Case("resnet10t", 1, 96, 32, 10)


class Setting(NamedTuple):
    """The settings of a training step."""

    amp_dtype: Literal["float16", "bfloat16", "float32"]
    deterministic: bool = True
    compile: bool = False
    channels_last: bool = True

    @property
    def name(self) -> str:
        """The name in the tables."""
        parts = [self.amp_dtype, "deterministic" if self.deterministic else "not deterministic"]
        parts += ["compiled"] if self.compile else []
        parts += [] if self.channels_last else ["channels first"]
        return ", ".join(parts)


def main() -> None:
    """Time all settings; on a GPU, print their memory as well."""
    args = command_line().parse_args()
    print_machine(("torch", "timm"))
    on_gpu = torch.cuda.is_available()
    case = TOY[0] if args.toy else GPU_CASE if on_gpu else CPU_CASE
    settings = [
        setting
        for setting in list_settings("float16" if on_gpu else "float32")
        if not (setting.compile and args.no_compile)
    ]
    candidates = {setting.name: training_steps(case, setting) for setting in settings}
    for name, take_steps in candidates.items():
        print_first_step(name, take_steps)
    times = time_alternating(
        {name: partial(take_steps, case.steps) for name, take_steps in candidates.items()}, args.rounds
    )
    title = f"{case.model}, {case.size} px, batches of {case.batch}"
    print_times(title, times, case.steps * case.batch, "image", settings[0].name)
    if args.profile:
        print_profile(candidates[settings[0].name])


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="number of timed rounds")
    parser.add_argument("--toy", action="store_true", help="use a tiny model")
    parser.add_argument("--no-compile", action="store_true", help="skip the settings that compile, which takes minutes")
    parser.add_argument("--profile", action="store_true", help="print a profile of the default setting")
    return parser


def list_settings(amp_dtype: Literal["float16", "float32"]) -> list[Setting]:
    """Return the settings to compare; the first is the default."""
    settings = [
        Setting(amp_dtype),
        Setting(amp_dtype, deterministic=False),
        Setting(amp_dtype, compile=True),
        Setting(amp_dtype, deterministic=False, compile=True),
    ]
    return [*settings, Setting(amp_dtype, channels_last=False) if amp_dtype == "float32" else Setting("bfloat16")]


def training_steps(case: Case, setting: Setting) -> Callable[[int], None]:
    """Return a function that takes a number of steps on one batch."""
    params = setting_params(setting)
    device = init_device(params.threads, setting.deterministic)
    classifier = build_classifier(Architecture(case.model, case.in_chans, case.size))
    if not setting.channels_last:
        classifier = classifier.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        classifier.backbone.register_forward_pre_hook(_to_channels_first)
    images = torch.rand(case.batch, 1, case.size, case.size, device=device)
    labels = (torch.rand(case.batch, 15, device=device) < 0.1).float()
    trainer = Trainer(classifier, params, labels)

    def take_steps(number: int) -> None:
        init_device(params.threads, setting.deterministic)
        trainer.classifier.train()
        for _ in range(number):
            trainer.step(images, labels)

    return take_steps


def setting_params(setting: Setting) -> TrainParams:
    """Return the committed parameters with the data type and the compilation of `setting`."""
    with tempfile.TemporaryDirectory() as name:
        changes: dict[str, Any] = {"amp_dtype": setting.amp_dtype, "compile": setting.compile}
        write_params(Path(name), ROOT / "params.yaml", **changes)
        return read_params(TrainParams, Path(name) / "params.yaml")


def print_first_step(name: str, take_steps: Callable[[int], None]) -> None:
    """Take the first step, which compiles and makes cuDNN's plans, and another one for the peak of GPU memory."""
    start = time.perf_counter()
    take_steps(1)
    synchronize()
    print(f"{name}: first step {time.perf_counter() - start:.1f} s", end="", flush=True)
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()  # with the networks of the other settings
        torch.cuda.reset_peak_memory_stats()
        take_steps(1)
        print(f", peak of the next {(torch.cuda.max_memory_allocated() - before) / 1e9:.1f} GB", end="")
    print(flush=True)


def print_profile(take_steps: Callable[[int], None]) -> None:
    """Print the operations that take most of the time of 3 steps."""
    on_gpu = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiler:
        take_steps(3)
        synchronize()
    column = "self_cuda_time_total" if on_gpu else "self_cpu_time_total"
    print(profiler.key_averages().table(sort_by=column, row_limit=25, max_name_column_width=60))


def _to_channels_first(_: torch.nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(images.contiguous() for images in inputs)


if __name__ == "__main__":
    main()
