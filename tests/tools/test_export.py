"""Exporting networks, as a person does it, and the file in onnxruntime beside what tools.predict says."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from cxr.core.errors import InputError, run_as_script
from cxr.core.files import sha256, write_json
from cxr.core.labels import CLASSES
from cxr.evaluation.calibration import Calibration, logit
from cxr.images.decode import decode_and_resize
from cxr.images.resize import resize
from cxr.inference.params import TTA
from cxr.inference.tta import tta_views
from cxr.models.classifier import Architecture, build_classifier
from cxr.models.model_file import save_model
from tests.fixtures.project import ROOT
from tests.fixtures.stages import files_in
from tools.export import command, metadata, writing
from tools.export.graph import Whole, mean_log_odds
from tools.predict import command as predict
from tools.predict.output import NOT_CLINICAL

WITHIN = 1e-4
SIDE = 32
VIEWS = TTA(hflip=False, translate=0, scale=0, five_crop=0.8)
ALL_VIEWS = TTA(hflip=True, translate=0.05, scale=0.1, five_crop=0.8)
MEMBERS = ("data/models/test_resnet-1.safetensors", "data/models/test_resnet-2.safetensors")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two networks, decisions of just these, and `data/ensemble.onnx`, exported by the command."""
    folder = tmp_path_factory.mktemp("project")
    for seed, name in enumerate(MEMBERS):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        save_network(folder / name, Architecture("test_resnet", in_chans=1, image_size=SIDE), seed)
    write_json(decisions(folder), folder / "data/decisions.json")
    done = call(folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder


def decisions(folder: Path) -> dict[str, Any]:
    """As evaluate writes them; slopes that flatten and that sharpen, and one class that keeps its probabilities."""
    reasons = ("too few",) + ("",) * 14
    calibration = Calibration(np.linspace(1, 3, 15), np.linspace(0, -1, 15), reasons)
    calibration.slope[1] = 0.3
    thresholds = np.linspace(0.3, 0.6, 15)
    return {
        "members": [Path(name).stem for name in MEMBERS],
        "sha256": [sha256(folder / name) for name in MEMBERS],
        "tta": VIEWS.model_dump(),
        "classes": list(CLASSES),
        "calibration": calibration.to_dict(),
        "rule": "youden",
        "thresholds": thresholds.tolist(),
        "calibrated_thresholds": calibration.apply(thresholds[None])[0].tolist(),
    }


def save_network(path: Path, architecture: Architecture, seed: int = 0) -> None:
    """Write an untrained network that tells images apart: it has the normalisation of some, and spread answers."""
    torch.manual_seed(seed)
    classifier = build_classifier(architecture)
    pixels = torch.from_numpy(writing.drawn_images(4, architecture.image_size)).unsqueeze(1) / 255
    with torch.no_grad():
        for layer in classifier.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = 1
        if classifier.attention:
            classifier.attention.attention.weight.normal_()
        first, *others = classifier.train()(pixels)
        spread = (torch.stack(others) - first).std()
        for head in classifier.head_layers():
            weight = getattr(head, "logits", head).weight
            assert isinstance(weight, torch.Tensor)
            weight.mul_(1 / spread)
    save_model(classifier, architecture, {}, path)


@pytest.fixture(autouse=True)
def _here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "project" in request.fixturenames:
        monkeypatch.chdir(request.getfixturevalue("project"))


def call(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    process = [sys.executable, "-m", "tools.export", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(process, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def call_here(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> None:
    """The same in this process, which spares its start."""
    monkeypatch.setattr(sys, "argv", ["export", *map(str, words)])
    command.main()


def predicted(
    monkeypatch: pytest.MonkeyPatch, folder: Path, files: Sequence[Path], *words: str | Path
) -> dict[str, Any]:
    monkeypatch.setattr(sys, "argv", ["predict", *map(str, files), "--json", str(folder / "a.json"), *map(str, words)])
    predict.main()
    found: dict[str, Any] = json.loads((folder / "a.json").read_text(encoding="utf-8"))
    return found


def probabilities(found: dict[str, Any]) -> NDArray[np.float64]:
    return np.array([[image["probabilities"][name] for name in CLASSES] for image in found["images"]])


def phantoms(folder: Path, count: int, side: int) -> list[Path]:
    """Drawn radiographs as PNG files, a little larger than the networks' images."""
    paths = [folder / f"{number:03}.png" for number in range(count)]
    for path, pixels in zip(paths, writing.drawn_images(count, side + 10), strict=True):
        Image.fromarray(pixels).save(path)
    return paths


def ask(file: Path, images: Sequence[Path], size: int) -> list[NDArray[Any]]:
    """What onnxruntime says of image files, in one batch."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    answers: list[NDArray[Any]] = session.run(
        None, {"images": np.stack([decode_and_resize(path.read_bytes(), size) for path in images])}
    )
    return answers


def told(file: Path) -> dict[str, str]:
    found: dict[str, str] = onnxruntime.InferenceSession(file).get_modelmeta().custom_metadata_map
    return found


def test_a_hundred_phantom_images_get_predicts_numbers_and_calls(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    images = phantoms(tmp_path, 100, SIDE)
    expected = predicted(monkeypatch, tmp_path, images)
    assert expected["calibrated"]
    found, called = ask(Path("data/ensemble.onnx"), images, SIDE)
    assert (found.dtype.name, found.shape, called.dtype.name) == ("float32", (100, 15), "bool")
    assert np.ptp(found, axis=0).max() > 0.1
    np.testing.assert_allclose(found, probabilities(expected), rtol=0, atol=WITHIN)
    assert [[name for name, is_called in zip(CLASSES, row, strict=True) if is_called] for row in called] == [
        image["called"] for image in expected["images"]
    ]


def test_one_image_alone_gets_the_number_that_it_gets_among_others(project: Path, tmp_path: Path) -> None:
    images = phantoms(tmp_path, 3, SIDE)
    together = ask(Path("data/ensemble.onnx"), images, SIDE)[0]
    alone = [ask(Path("data/ensemble.onnx"), [image], SIDE)[0][0] for image in images]
    np.testing.assert_allclose(alone, together, rtol=0, atol=1e-6)


def test_another_process_writes_the_same_bytes_and_no_path_is_in_them(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call_here(monkeypatch, *MEMBERS, "--output", tmp_path / "deep" / "b.onnx")
    content = (tmp_path / "deep/b.onnx").read_bytes()
    assert content == Path("data/ensemble.onnx").read_bytes()
    for trace in (str(ROOT), str(project), str(Path.home()), "site-packages", ".py", "stack_trace"):
        assert trace.encode() not in content
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(f"MB, SHA-256 {sha256(tmp_path / 'deep/b.onnx')}")
    assert lines[1] == "test_resnet-1, test_resnet-2 at 32 px, 5 views of each image, calibrated, with thresholds"
    assert float(lines[2].removesuffix(" at most").rpartition(" ")[2]) < WITHIN
    assert lines[3] == NOT_CLINICAL


def test_the_metadata_says_how_to_feed_and_read_it(project: Path) -> None:
    decisions = json.loads(Path("data/decisions.json").read_text(encoding="utf-8"))
    about = told(Path("data/ensemble.onnx"))
    assert json.loads(about["classes"]) == list(CLASSES)
    assert (about["image_size"], about["calibrated"], about["threshold_rule"]) == (str(SIDE), "true", decisions["rule"])
    assert list(json.loads(about["thresholds"]).values()) == decisions["calibrated_thresholds"]
    assert [member["sha256"] for member in json.loads(about["members"])] == decisions["sha256"]
    assert [member["name"] for member in json.loads(about["members"])] == decisions["members"]
    assert json.loads(about["views"]) == [view._asdict() for view in tta_views(VIEWS)]
    assert f"resized to {SIDE} x {SIDE} pixels" in about["preprocessing"]
    assert json.loads(about["preprocessing_steps"])["resize"]["height"] == SIDE
    assert about["note"] == NOT_CLINICAL
    assert about["license"] == yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["license"]
    assert about["synthetic"] == "null"


def test_the_graph_is_of_a_named_opset_and_takes_any_number_of_images(project: Path) -> None:
    model = onnx.load("data/ensemble.onnx")
    assert [(each.domain, each.version) for each in model.opset_import] == [("", writing.OPSET)]
    assert model.ir_version == writing.IR_VERSION
    for value, name, kind, shape in (
        (model.graph.input[0], "images", onnx.TensorProto.UINT8, ["batch", SIDE, SIDE]),
        (model.graph.output[0], "probabilities", onnx.TensorProto.FLOAT, ["batch", 15]),
        (model.graph.output[1], "called", onnx.TensorProto.BOOL, ["batch", 15]),
    ):
        found = value.type.tensor_type
        assert (value.name, found.elem_type) == (name, kind)
        assert [dimension.dim_param or dimension.dim_value for dimension in found.shape.dim] == shape
    weights = [tensor for tensor in model.graph.initializer if tensor.name.endswith("fc.weight")]
    assert len(weights) == len(MEMBERS), "each network is there once, whatever the number of views"
    assert onnx.TensorProto.DOUBLE not in {tensor.data_type for tensor in model.graph.initializer}


def test_whether_images_were_drawn_is_told_where_the_metrics_are_of_the_same_run(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def told() -> str:
        return metadata.describe(command.load_ensemble([], torch.device("cpu")))["synthetic"]

    monkeypatch.setattr("tools.predict.ensemble.METRICS", tmp_path)
    assert told() == "null"
    thresholds = json.loads((project / "data/decisions.json").read_text())["thresholds"]
    rows = {name: {"threshold": threshold} for name, threshold in zip(CLASSES, thresholds, strict=True)}
    for synthetic, word in ((True, "true"), (False, "false")):
        write_json({"synthetic": synthetic, "classes": rows}, tmp_path / "classes.json")
        assert told() == word
    rows["Mass"] = {"threshold": 0.123}
    write_json({"synthetic": True, "classes": rows}, tmp_path / "classes.json")
    assert told() == "null"


def test_every_view_is_that_of_predict(project: Path) -> None:
    ensemble = command.load_ensemble([], torch.device("cpu"))
    assert ensemble.decisions
    other = replace(ensemble, decisions=ensemble.decisions._replace(tta=ALL_VIEWS))
    squares = writing.drawn_images(5, SIDE)
    with torch.inference_mode():
        found = Whole(other).eval()(torch.from_numpy(squares))[0].numpy()
    assert len(other.views) == 22
    np.testing.assert_allclose(found, ensemble.decisions.calibration.apply(other.predict(squares)), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "architecture",
    [
        Architecture("test_convnext", in_chans=3, image_size=64, attention_pool=True),
        # Fused attention with a bias, whose order of memory PyTorch's exporter cannot follow.
        Architecture("test_vit_relpos", in_chans=1, image_size=64),
    ],
    ids=lambda architecture: architecture.model,
)
def test_networks_of_other_kinds_export_and_without_decisions_call_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: Architecture
) -> None:
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "a.safetensors"
    save_network(model, architecture)
    call_here(monkeypatch, model, "--output", "a.onnx")
    images = phantoms(tmp_path, 8, architecture.image_size)
    (found,) = ask(Path("a.onnx"), images, architecture.image_size)
    expected = predicted(monkeypatch, tmp_path, images, "--model", model)
    assert np.ptp(found, axis=0).max() > 0.1
    np.testing.assert_allclose(found, probabilities(expected), rtol=0, atol=WITHIN)
    about = told(Path("a.onnx"))
    assert (about["calibrated"], about["thresholds"], about["synthetic"]) == ("false", "null", "null")


def test_efficientnet_b3_at_300_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "a.safetensors"
    save_network(model, Architecture("efficientnet_b3", in_chans=3, image_size=300))
    call_here(monkeypatch, model, "--output", "a.onnx")
    images = phantoms(tmp_path, 4, 300)
    (found,) = ask(Path("a.onnx"), images, 300)
    expected = predicted(monkeypatch, tmp_path, images, "--model", model)
    assert np.ptp(found, axis=0).max() > 0.1
    np.testing.assert_allclose(found, probabilities(expected), rtol=0, atol=WITHIN)


def test_the_demos_network_on_a_hundred_of_its_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    if not Path("data/decisions.json").is_file() or not Path("data/models").is_dir():
        pytest.skip("no trained network here: dvc repro")
    call_here(monkeypatch, "--output", tmp_path / "a.onnx")
    images = sorted(Path("data/demo/images").glob("*.png"))[:100]
    found = ask(tmp_path / "a.onnx", images, int(told(tmp_path / "a.onnx")["image_size"]))[0]
    expected = probabilities(predicted(monkeypatch, tmp_path, images))
    np.testing.assert_allclose(found, expected, rtol=0, atol=WITHIN)


@given(arrays.arrays(np.float32, (6, 2, 3), elements=st.floats(-200, 200, width=32)))
@settings(deadline=None)
def test_log_odds_of_a_mean_are_those_of_float64_even_where_float32_has_no_such_probability(
    logits: NDArray[np.float32],
) -> None:
    exact = torch.sigmoid(torch.from_numpy(logits).double()).mean(dim=0).numpy()
    found = mean_log_odds(torch.from_numpy(logits)).numpy()
    # Next to 1, float64 itself has no more than 12 digits of 1 - p left at the bound.
    np.testing.assert_allclose(found, logit(exact), rtol=1e-5, atol=2e-4)


def test_calibration_that_magnifies_the_ends_is_kept(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Probabilities of 1e-9 and slopes of 0.2: float32 probabilities would give numbers that are 0.1 off."""
    logits = np.array([-40, -25, -21, -15, 0, 15, 21, 25, 40], np.float32)
    slope, intercept = 0.2, 3.0
    expected = 1 / (1 + np.exp(-(slope * logit(1 / (1 + np.exp(-logits.astype(np.float64)))) + intercept)))
    found = torch.sigmoid(slope * mean_log_odds(torch.from_numpy(logits)[None]) + intercept)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-6)


def examples_in_the_docs() -> list[str]:
    """Return the two Python examples of docs/export.md."""
    text = (ROOT / "docs/export.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_the_documented_example_runs_without_torch_and_this_project(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    example, same_bits = examples_in_the_docs()
    lines = list(filter(None, example.splitlines()))
    assert len(lines) == 10
    (name,) = re.findall(r"data/demo/images/\S+\.png", example)
    (project / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(ROOT / name, project / name)
    expected = predicted(monkeypatch, tmp_path, [Path(name)])["images"][0]["probabilities"]
    absent = ["import sys", "assert not {'torch', 'cxr'} & set(sys.modules)"]
    exact = [*lines[:8], *same_bits.splitlines(), *lines[8:]]
    for program, within in ((lines, 0.05), (exact, WITHIN)):
        # -I: nothing is found but what is installed.
        done = subprocess.run(
            [sys.executable, "-I", "-c", "\n".join([*program, *absent])], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == pytest.approx(expected, abs=within)


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 60), st.integers(0, 9))
@settings(deadline=None)
def test_the_documented_resize_gives_the_bits_of_the_stage(rows: int, columns: int, size: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (rows, columns), np.uint8)
    namespace: dict[str, Any] = {"np": np, "image": image, "size": size}
    exec(examples_in_the_docs()[1], namespace)  # noqa: S102 (code of the documentation)
    assert np.array_equal(namespace["pixels"], resize(image, size))


def test_mistakes_end_with_one_message_and_leave_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Path(tmp_path / "broken.safetensors").write_bytes(b"nothing of the kind")
    other = Architecture("test_resnet", 1, 48)
    save_model(build_classifier(other), other, {}, tmp_path / "other.safetensors")
    copy = shutil.copyfile(MEMBERS[0], tmp_path / "mine.safetensors")
    before = files_in(project) | files_in(tmp_path)
    for words, message in (
        (["nonesuch.safetensors"], "nonesuch.safetensors is not a model file"),
        ([tmp_path / "broken.safetensors"], "broken.safetensors is not a model file"),
        ([MEMBERS[0], tmp_path / "other.safetensors"], r"test_resnet-1\.safetensors 32 px.*other\.safetensors 48 px"),
        (["--output", "data"], "--output data: that is a folder"),
        ([copy, "--output", copy], "that is one of the networks"),
    ):
        with pytest.raises(InputError, match=message):
            call_here(monkeypatch, *words)
    assert files_in(project) | files_in(tmp_path) == before


def test_a_folder_that_cannot_be_written_to_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=r"^error: .*data/decisions\.json"):
        run_as_script(lambda: call_here(monkeypatch, "--output", "data/decisions.json/a.onnx"))


def test_what_has_to_be_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(InputError, match=r"onnxscript must be installed.*pip install -r requirements-export\.txt"):
        call_here(monkeypatch)


@pytest.mark.parametrize("answer", [0, np.nan])
def test_a_file_with_other_numbers_is_not_kept(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: float
) -> None:
    ensemble = command.load_ensemble([], torch.device("cpu"))
    monkeypatch.setattr(writing, "translate", lambda *_: onnx_ir.load("data/ensemble.onnx"))
    monkeypatch.setattr(writing, "run_file", lambda _, squares: np.full((len(squares), 15), answer))
    with pytest.raises(InputError, match=r"differ from the networks' by .*: it is not kept"):
        writing.write(ensemble, {}, tmp_path / "a.onnx")
    assert files_in(tmp_path) == set()


def test_without_onnxruntime_a_warning_says_that_nothing_was_compared(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(writing, "find_spec", lambda _: None)
    ensemble = command.load_ensemble([], torch.device("cpu"))
    assert writing.check_numbers(ensemble, Path("data/ensemble.onnx")) is None
    assert "onnxruntime is not installed" in capsys.readouterr().err


def test_networks_too_large_for_one_file_are_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "LARGEST", 1000)
    with pytest.raises(InputError, match=r"at most 2[.]1 GB: export fewer"):
        call_here(monkeypatch)


def test_a_network_that_pytorch_cannot_export_is_said_to_be_one(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise torch.onnx.OnnxExporterError("a long story") from ValueError("no such operation\nand more")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(InputError, match=r"cannot export this network: no such operation$"):
        call_here(monkeypatch, "--output", tmp_path / "a.onnx")
    assert files_in(tmp_path) == set()
