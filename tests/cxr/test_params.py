import os
import re
from pathlib import Path

import pytest

from cxr.core.errors import InputError
from cxr.core.params import Strict, pipeline_params, read_params
from cxr.datasets.params import SampleParams, SplitParams
from cxr.evaluation.params import EvaluateParams
from cxr.images.params import ResizeParams
from cxr.params import STAGES, Params
from cxr.training.params import TrainParams
from tests.fixtures.project import ROOT
from tests.fixtures.stages import write_params

COMMITTED = [ROOT / "params.yaml", *sorted((ROOT / "presets").glob("*.yaml"))]
SECTIONS = (SampleParams, SplitParams, ResizeParams, TrainParams, EvaluateParams)


def with_line(folder: Path, key: str, text: str) -> Path:
    """Write the committed params.yaml with the line of `key` replaced by `text`; return its path."""
    lines = (ROOT / "params.yaml").read_text(encoding="utf-8")
    changed, times = re.subn(rf"(?m)^( *){key}:.*$", lambda line: line[1] + text, lines)
    assert times == 1
    path = folder / "params.yaml"
    path.write_text(changed, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.name)
def test_every_committed_file_is_valid(path: Path) -> None:
    assert read_params(Params, path).sample.size > 0


@pytest.mark.parametrize("section", SECTIONS)
def test_a_stage_gets_its_own_parameters_only(section: type[Strict]) -> None:
    whole = read_params(Params, ROOT / "params.yaml").model_dump()
    section_values = read_params(section, ROOT / "params.yaml").model_dump()
    assert set(section_values) == set(section.model_fields)
    assert section_values == {name: whole[name] for name in section_values}
    assert len(section_values) < len(whole)


def test_the_stages_together_have_all_parameters() -> None:
    assert set().union(*(section.model_fields for section in SECTIONS)) == set(Params.model_fields)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-05", 1e-5), ("1e-5", 1e-5), ("1E+1", 10.0), ("2", 2.0), (".5", 0.5), ("1.", 1.0), ("2.5e-3", 0.0025)],
)
def test_every_notation_of_a_number_is_read_as_that_number(tmp_path: Path, text: str, value: float) -> None:
    lr = read_params(TrainParams, with_line(tmp_path, "lr", f"lr: {text}")).lr
    assert isinstance(lr, float)
    assert lr == value


@pytest.mark.parametrize("word", ["off", "yes", "no", "1:30", "1:30.5", "y"])
def test_words_are_read_as_strings(tmp_path: Path, word: str) -> None:
    path = with_line(tmp_path, "exclude", f"exclude: [{word}]")
    assert read_params(SampleParams, path).sample.exclude == [word]


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("epochs", "epochs: abc", r"epochs: .*integer.*'abc'"),
        ("epochs", "epochs: true", r"epochs: .*integer.*True"),
        ("epochs", "epochs: 3.0", r"epochs: .*integer.*3\.0"),
        ("epochs", "epochs: 0", r"epochs: .*greater than or equal to 1 .*0"),
        ("epochs", "epochs:", r"epochs: .*integer.*None"),
        ("lr", "lr: -1", r"lr: .*greater than 0 .*-1"),
        ("lr", "lr: true", r"lr: .*number.*True"),
        ("lr", "lr: .nan", r"lr: .*finite.*nan"),
        ("lr", "lr: .inf", r"lr: .*finite.*inf"),
        ("lr", "lrr: 0.1", r"lrr: unknown parameter; did you mean lr\?"),
        ("lr", "zzzzzz: 0.1", r"lr: missing"),
        ("degrees", "degreees: 5", r"augment\.degreees: unknown parameter; did you mean augment\.degrees\?"),
        ("size", "size: 0", r"sample\.size: .*greater than or equal to 1"),
        ("train", "train: 0.8", r"split: .*add up to 1, but add up to 1\.1"),
        ("val", "val: 0", r"split\.val: .*greater than 0"),
        ("method", "method: random", r"split\.method: .*'patient' or 'official'.*'random'"),
        ("weights", "weights: off", r"weights: .*'imagenet' or 'none'.*'off'"),
        ("deterministic", "deterministic: yes", r"deterministic: .*boolean.*'yes'"),
        ("in_chans", "in_chans: 2", r"in_chans: .*1 or 3"),
        ("image_size", "image_size: 31", r"image_size: .*32"),
        ("data_seed", "data_seed: 4294967296", r"data_seed: .*4294967296"),
        ("raw_dir", "raw_dir: 5", r"raw_dir: .*path.*5"),
        ("raw_dir", r'raw_dir: "a\0b"', r"raw_dir: .*NUL"),
        ("raw_dir", r'raw_dir: "\ud800"', r"raw_dir: .*surrogates"),
        ("threads", "threads: 1000000", r"threads: .*less than or equal to 1024 \(got 1000000\)"),
        ("devices", "devices: 1000000", r"devices: .*less than or equal to 1024 \(got 1000000\)"),
        ("epochs", f"epochs: {'1' * 4000}", r"epochs: .*less than or equal to .*1111\.\.\.1111"),
        ("lr", f"lr: 0x{'f' * 5000}", r"lr: .*number \(got an integer of thousands of digits\)"),
    ],
)
def test_an_invalid_value_is_reported(tmp_path: Path, key: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_params(Params, with_line(tmp_path, key, text))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("models", [], "models: .*at least 1"),
        ("models", ["resnet10t", "resnet10t"], "models: values must be distinct; repeated: resnet10t"),
        ("models", ["../resnet"], "models.0: .*pattern"),
        ("models", ["hf-hub:someone/model"], "models.0: .*pattern"),
        ("models", ["local-dir:/tmp/model"], "models.0: .*pattern"),
        ("seeds", [1, 2, 1], "seeds: values must be distinct; repeated: 1"),
        ("seeds", 1, "seeds: .*list"),
        ("sample", 5, "sample: .*5"),
    ],
)
def test_an_invalid_list_is_reported(tmp_path: Path, name: str, value: object, message: str) -> None:
    write_params(tmp_path, **{name: value})
    with pytest.raises(InputError, match=message):
        read_params(Params, tmp_path / "params.yaml")


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    write_params(tmp_path, epochs="abc", lrr=0.1, **{"sample.size": 0, "augment.hflip": 2})
    with pytest.raises(InputError) as caught:
        read_params(Params, tmp_path / "params.yaml")
    first, *problems = str(caught.value).splitlines()
    assert first.endswith("params.yaml is invalid:")
    assert {problem.split(":")[0].strip() for problem in problems} == {"epochs", "lrr", "sample.size", "augment.hflip"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- 1\n- 2\n", "must map parameter names to values"),
        (b"", "must map parameter names to values"),
        (b"a: [1,\n", "is not valid YAML"),
        (b"a: 1\nb: 2\na: 3\n", 'duplicate key "a"'),
        (b"sample:\n  size: 1\n  size: 2\n", 'duplicate key "size"'),
        (b"a: \xff\n", "is not text in UTF-8"),
        ("a: 1\n".encode("utf-16"), "is not text in UTF-8"),
        (b"lr: 1" + b"1" * 5000, "(?s)is not valid YAML: .*5001 digits.*line 1, column 5"),
        (b"a: 1\nlr: 2020-99-99", "(?s)is not valid YAML: month must be .*line 2, column 5"),
        (b"a:\n  " + b"[" * 20_000, "is not valid YAML: the values in line 2 are nested too deeply"),
        (b"- " * 30 + b"1", "the values in line 1 are nested too deeply"),
        (b"a: &a [x, x]\nb: [*a, *a]\n", r"line 2 has an alias, \*a; write the value instead"),
        (b"a: &a {x: 1}\nb:\n  <<: *a\n", r"line 3 has an alias, \*a; write the value instead"),
        (b"? [a, b]\n: 1\n", "unknown parameter"),
        (b"lr: 1\n", "epochs: missing"),
    ],
)
def test_an_unusable_file_is_reported(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_params(SampleParams, tmp_path / "params.yaml")


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert read_params(Params, path) == read_params(Params, ROOT / "params.yaml")


def test_a_pipe_is_reported(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "params.yaml")
    with pytest.raises(InputError, match="is not a regular file"):
        read_params(SampleParams, tmp_path / "params.yaml")


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run from the top folder of the repository"):
        read_params(SampleParams, tmp_path / "params.yaml")


@pytest.mark.parametrize("section", SECTIONS)
def test_every_stage_rejects_an_unknown_name(tmp_path: Path, section: type[Strict]) -> None:
    write_params(tmp_path, lrr=0.1, calibration_bin=3)
    with pytest.raises(InputError) as caught:
        read_params(section, tmp_path / "params.yaml")
    assert sorted(str(caught.value).splitlines()[1:]) == [
        "  calibration_bin: unknown parameter; did you mean calibration_bins?",
        "  lrr: unknown parameter; did you mean lr?",
    ]


@pytest.mark.parametrize("section", SECTIONS)
def test_every_stage_rejects_a_missing_name(tmp_path: Path, section: type[Strict]) -> None:
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text(encoding="utf-8").replace("\nlr: 0.002\n", "\n"), encoding="utf-8")
    with pytest.raises(InputError, match=r"\n  lr: missing$"):
        read_params(section, path)


def test_a_stage_checks_the_values_of_its_own_parameters_only(tmp_path: Path) -> None:
    write_params(tmp_path, epochs="abc")
    assert read_params(ResizeParams, tmp_path / "params.yaml").image_size == 96
    with pytest.raises(InputError, match="epochs"):
        read_params(TrainParams, tmp_path / "params.yaml")


def test_dvc_yaml_lists_the_parameters_that_each_stage_reads() -> None:
    listed = {stage: set(names) for stage, names in pipeline_params().items()}
    assert listed == {stage: set(section.model_fields) for stage, section in STAGES.items()}
