"""Writing an ensemble as an ONNX file, which is kept only if onnxruntime reproduces PyTorch's probabilities.

This module needs the packages of `requirements-export.txt`.
"""

import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import torch
from numpy.typing import NDArray
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch.nn.attention import SDPBackend, sdpa_kernel

from cxr.core.errors import InputError, warn
from tools.export.graph import EnsembleModule
from tools.output_file import output_file
from tools.phantom.exam import Exam
from tools.phantom.radiograph import render
from tools.predict.ensemble import Ensemble

INPUT = "images"
OUTPUTS = ("probabilities", "predicted_positive")
# The oldest opset that PyTorch's exporter writes, and the IR version of its release, for old runtimes.
OPSET, IR_VERSION = 18, 8
LARGEST = 2**31 - 1  # bytes of an ONNX file (a protocol buffer)
TOLERANCE = 1e-4  # of a probability
COMPARED = 4  # images


def write_onnx(ensemble: Ensemble, metadata: Mapping[str, str], path: Path) -> float | None:
    """Write the ensemble to `path`, with the input and outputs of `EnsembleModule`.

    The same networks, decisions and package versions give the same bytes.

    Returns:
        The largest difference from the probabilities of `tools.predict` on synthetic images; None without onnxruntime.

    Raises:
        InputError: if a network cannot be exported, the networks are too large for one file, or the file gives other
            probabilities. `path` is then unchanged.
    """
    check_size(ensemble)
    with output_file(path) as temporary:
        temporary.touch()  # fails at once if the folder is not writable
        # Exporting takes a third less time without gradients.
        module = EnsembleModule(ensemble).eval().requires_grad_(requires_grad=False)
        model = to_onnx(module, ensemble.image_size)
        model.metadata_props.update(metadata)
        temporary.write_bytes(onnx_ir.to_proto(model).SerializeToString(deterministic=True))
        onnx.checker.check_model(str(temporary), full_check=True)
        return compare_with_pytorch(ensemble, temporary)


def to_onnx(module: EnsembleModule, image_size: int) -> onnx_ir.Model:
    """Return the module as an ONNX graph for any batch size, without the source file names that PyTorch adds.

    Raises:
        InputError: if PyTorch's exporter does not support it.
    """
    example = torch.zeros((2, image_size, image_size), dtype=torch.uint8)
    try:
        # The exporter does not support the memory layout of fused attention.
        with warnings.catch_warnings(action="ignore"), sdpa_kernel(SDPBackend.MATH):
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=OUTPUTS if module.thresholds is not None else OUTPUTS[:1],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).partition("\n")[0]
        raise InputError(f"PyTorch {torch.__version__} cannot export this network: {reason}") from None
    assert program is not None
    ClearMetadataAndDocStringPass()(program.model)
    program.model.ir_version = IR_VERSION
    return program.model


def check_size(ensemble: Ensemble) -> None:
    """Check that the networks fit into one file.

    Raises:
        InputError: if they do not.
    """
    weights = sum(tensor.nbytes for one in ensemble.classifiers for tensor in one.state_dict().values())
    if weights > LARGEST:
        raise InputError(
            f"the networks take {weights / 1e9:.1f} GB, and an ONNX file holds at most 2.1 GB: export fewer of them"
        )


def compare_with_pytorch(ensemble: Ensemble, path: Path) -> float | None:
    """Return the largest difference between file and ensemble on synthetic images; None without onnxruntime.

    Raises:
        InputError: if it is above `TOLERANCE`.
    """
    if find_spec("onnxruntime") is None:
        warn("onnxruntime is not installed: the file was not compared with PyTorch")
        return None
    images = synthetic_images(COMPARED, ensemble.image_size)
    expected = ensemble.calibrate(ensemble.predict(images))
    outputs = run_onnx(path, images), run_onnx(path, images[:1])
    difference = max(max_difference(output, expected[: len(output)]) for output in outputs)
    if not difference <= TOLERANCE:
        raise InputError(
            f"the file's probabilities differ from PyTorch's by {difference:.1e}, over {TOLERANCE}: no file is kept"
        )
    return difference


def max_difference(found: NDArray[np.float32], expected: NDArray[np.float64]) -> float:
    """Return the largest absolute difference; infinity if nan is in different elements."""
    defined = ~np.isnan(expected)
    return float(np.abs(found - expected)[defined].max()) if np.array_equal(defined, ~np.isnan(found)) else np.inf


def run_onnx(path: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return onnxruntime's probabilities of uint8 [images, size, size], float32 [images, 15]."""
    import onnxruntime  # noqa: PLC0415 (may be missing)

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    probabilities: NDArray[np.float32] = session.run(OUTPUTS[:1], {INPUT: images})[0]
    return probabilities


def synthetic_images(count: int, size: int) -> NDArray[np.uint8]:
    """Return radiographs of `tools.phantom`, uint8 [count, size, size], for comparisons without a data set."""
    exams = [Exam(seed=1, patient=number, number=0, age=50, sex="F", view="PA") for number in range(count)]
    return np.stack([render(exam, size)[0] for exam in exams])
