"""From networks to an ONNX file, which is kept only if it gives their numbers.

This module needs what `requirements-export.txt` pins.
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
from cxr.core.files import atomic_write
from tools.export.graph import Whole
from tools.phantom.exam import Exam
from tools.phantom.radiograph import draw
from tools.predict.ensemble import Ensemble

INPUT = "images"
OUTPUTS = ("probabilities", "called")
# The oldest that PyTorch's exporter writes, in the form of its time: readers of the last years take it.
OPSET, IR_VERSION = 18, 8
LARGEST = 2**31 - 1  # bytes of a file in the format of ONNX (protocol buffers)
TOLERANCE = 1e-4  # of a probability
CHECKED = 4  # images


def write(ensemble: Ensemble, metadata: Mapping[str, str], path: Path) -> float | None:
    """Write the ensemble to `path` as ONNX: uint8 [batch, size, size] in, float32 [batch, 15] and bool [batch, 15] out.

    The same networks, decisions and packages give the same bytes.

    Returns:
        The largest difference from what `tools.predict` says of drawn images; None where onnxruntime is not installed.

    Raises:
        InputError: where a network cannot be exported, is too large for one file, or the file gives other numbers; then
            `path` keeps what it had.
    """
    check_size(ensemble)
    with atomic_write(path) as temporary:
        temporary.touch()  # so that a folder without rights is known before the work
        # Without gradients PyTorch takes a third less time.
        model = translate(Whole(ensemble).eval().requires_grad_(requires_grad=False), ensemble.image_size)
        model.metadata_props.update(metadata)
        temporary.write_bytes(onnx_ir.to_proto(model).SerializeToString(deterministic=True))
        onnx.checker.check_model(str(temporary), full_check=True)
        return check_numbers(ensemble, temporary)


def translate(whole: Whole, image_size: int) -> onnx_ir.Model:
    """The network as an ONNX graph for any number of images, without the file names that PyTorch leaves in it.

    Raises:
        InputError: where PyTorch's exporter does not know how.
    """
    example = torch.zeros((2, image_size, image_size), dtype=torch.uint8)
    names = OUTPUTS if whole.thresholds is not None else OUTPUTS[:1]
    try:
        # Fused attention lays its output out in an order that the exporter cannot follow.
        with warnings.catch_warnings(action="ignore"), sdpa_kernel(SDPBackend.MATH):
            program = torch.onnx.export(
                whole,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=names,
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
    """Raise InputError where the networks are too large for one file."""
    weights = sum(tensor.nbytes for one in ensemble.classifiers for tensor in one.state_dict().values())
    if weights > LARGEST:
        raise InputError(f"the networks take {weights / 1e9:.1f} GB, one ONNX file at most 2.1 GB: export fewer")


def check_numbers(ensemble: Ensemble, path: Path) -> float | None:
    """The largest difference of the file at `path` from the ensemble, on drawn images; None without onnxruntime.

    Raises:
        InputError: where it is above `TOLERANCE`.
    """
    if find_spec("onnxruntime") is None:
        warn("onnxruntime is not installed: the file's numbers were not compared with the networks'")
        return None
    squares = drawn_images(CHECKED, ensemble.image_size)
    raw = ensemble.predict(squares)
    expected = ensemble.decisions.calibration.apply(raw) if ensemble.decisions else raw
    found = run_file(path, squares), run_file(path, squares[:1])
    difference = max(distance(each, expected[: len(each)]) for each in found)
    if not difference <= TOLERANCE:
        raise InputError(f"the file's probabilities differ from the networks' by {difference:.1e}: it is not kept")
    return difference


def distance(found: NDArray[np.float32], expected: NDArray[np.float64]) -> float:
    """The largest difference of two arrays; infinite where one alone has a number."""
    known = ~np.isnan(expected)
    return float(np.abs(found - expected)[known].max()) if np.array_equal(known, ~np.isnan(found)) else np.inf


def run_file(path: Path, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What onnxruntime says of uint8 [images, size, size]: probabilities, float32 [images, 15]."""
    import onnxruntime  # noqa: PLC0415 (may be missing)

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    probabilities: NDArray[np.float32] = session.run(OUTPUTS[:1], {INPUT: squares})[0]
    return probabilities


def drawn_images(count: int, size: int) -> NDArray[np.uint8]:
    """Radiographs of `tools.phantom`, uint8 [count, size, size]: a file is checked where there is no data."""
    exams = [Exam(seed=1, patient=number, number=0, age=50, sex="F", view="PA") for number in range(count)]
    return np.stack([draw(exam, size)[0] for exam in exams])
