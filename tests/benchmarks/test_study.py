"""The study on a few noise images and a tiny network."""

import contextlib
import io
import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks import study
from benchmarks.study import StudyConfig, main, make_data, read_folds, read_results, run_changes, study_runs
from benchmarks.study_changes import BASELINE, CHANGES, Change, Values, baseline_values, merge, params_of
from benchmarks.study_report import (
    FOLDS,
    ChangeResult,
    RunRecord,
    auroc_over_folds,
    change_metrics,
    code_warning,
    conclusions,
    write_report,
)
from cxr.core.errors import InputError
from cxr.core.labels import CLASSES, label_matrix
from cxr.core.tables import read_sample
from cxr.evaluation.bootstrap import bootstrap_patients
from cxr.evaluation.class_values import MEANS
from cxr.evaluation.ranking import auroc_and_average_precision
from stages import train
from tests.fixtures.nih_folder import numbered_rows, write_nih

pytestmark = pytest.mark.slow

TWO_SEEDS = Change("two-seeds", {"seeds": [1, 2]}, "an ensemble")
SLOW = Change("slow", {"lr": 1e-9}, "learns nothing")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders of the runs that are trained, in this process instead of one process each."""
    folders: list[str] = []

    def run_here(stage: str, folder: Path) -> None:
        assert stage == "train"
        folders.append(f"{folder.parent.name}/{folder.name}")
        with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
            train.main()

    monkeypatch.setattr(study, "run_timed_stage", run_here)
    return folders


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes that the study starts."""
    started: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def noted(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(start(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", noted)
    return started


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> StudyConfig:
    """A study with its data, made by the stages, and the first fold trained by the stage train."""
    folder = tmp_path_factory.mktemp("study")
    raw = write_nih(folder / "raw", numbered_rows(120, each=2))
    values = baseline_values(raw, folder, image_size=32, model="test_resnet", epochs=1)
    values |= {"weights": "none", "in_chans": 1, "threads": 1, "bootstrap_samples": 200}
    config = StudyConfig(folder / "work", values)
    make_data(config)
    study.train_run(study_runs(config, BASELINE)[0], config)
    return config


@pytest.fixture
def metrics(made: StudyConfig, trained: list[str]) -> pd.DataFrame:
    assert run_changes(made, [BASELINE, TWO_SEEDS, SLOW]) == []
    return read_results(made, [TWO_SEEDS, SLOW]).metrics


def test_folds_hold_every_image_once_and_keep_patients_apart(made: StudyConfig) -> None:
    splits = [pd.read_csv(made.data / f"fold-{fold}/data/split.csv") for fold in range(FOLDS)]
    in_test = np.stack([split["split"] == "test" for split in splits])
    assert (in_test.sum(axis=0) == 1).all()
    assert list(in_test.sum(axis=1)) == [40, 40, 40]
    for split in splits:
        assert set(split["split"]) == {"train", "val", "test"}
        assert split.groupby("patient")["split"].nunique().max() == 1
    np.testing.assert_array_equal(read_folds(made), in_test.argmax(axis=0))


def test_a_finished_run_leaves_a_record_a_model_file_and_no_checkpoints(made: StudyConfig) -> None:
    finished = study_runs(made, BASELINE)[0]
    record = RunRecord(**json.loads((finished.folder / "training.json").read_text()))
    assert record.seconds > 0
    assert record.best_epoch == 1
    assert record.device.startswith(("cpu", "cuda"))
    assert finished.model_path.is_file()
    assert not (finished.folder / "checkpoints").exists()
    assert re.search(r"epoch +1", (finished.folder / "train.log").read_text())


def test_finished_runs_are_reused_by_every_change(made: StudyConfig, metrics: pd.DataFrame, trained: list[str]) -> None:
    trained.clear()
    assert run_changes(made, [BASELINE, TWO_SEEDS, SLOW]) == []
    run_changes(made, [Change("rule", {"threshold": {"rule": "youden"}}, "of evaluate only")])
    assert trained == []
    run_changes(made, [Change("three-seeds", {"seeds": [1, 2, 3]}, "two of them trained already")])
    assert [name.rpartition("-")[0] for name in trained] == [f"fold-{fold}/test_resnet-3" for fold in range(FOLDS)]
    trained.clear()
    run_changes(made, [Change("third-seed", {"seeds": [3]}, "trained in the ensemble")])
    assert trained == []


def test_another_size_or_other_images_have_another_folder(made: StudyConfig) -> None:
    for change in ({"image_size": 64}, {"raw_dir": "/elsewhere"}):
        assert StudyConfig(made.folder, made.values | change).data != made.data


def test_an_ensemble_is_the_mean_of_its_networks(made: StudyConfig, metrics: pd.DataFrame) -> None:
    folds = read_folds(made)
    one, other, both = (
        study.read_result(made, Change("any", {"seeds": seeds}, ""), folds) for seeds in ([1], [2], [1, 2])
    )
    assert one is not None
    assert other is not None
    assert both is not None
    np.testing.assert_allclose(both.probabilities, (one.probabilities + other.probabilities) / 2, rtol=1e-15)
    assert metrics.loc["two-seeds", "networks"] == 2


def test_metrics_equal_those_of_scikit_learn(made: StudyConfig, metrics: pd.DataFrame) -> None:
    folds, labels = read_folds(made), label_matrix(read_sample(made.data / "data/sample.csv"))
    for change in (BASELINE, TWO_SEEDS, SLOW):
        result = study.read_result(made, change, folds)
        assert result is not None
        aurocs = [
            roc_auc_score(labels[folds == fold], result.probabilities[folds == fold], average=None)
            for fold in range(FOLDS)
        ]
        by_class = np.mean(aurocs, axis=0)
        for name, columns in MEANS.items():
            assert metrics.loc[change.name, name] == pytest.approx(by_class[columns].mean(), abs=1e-12)
    expected = metrics["mean_15"] - metrics["mean_15"]["baseline"]
    np.testing.assert_allclose(metrics["difference"], expected, atol=1e-12)
    assert metrics["difference"].is_monotonic_decreasing


def simulated(images: int = 300) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """A table of images, two of each patient, their folds, and probabilities that correlate with the labels."""
    random = np.random.default_rng(0)
    labels = (random.random((images, len(CLASSES))) < 0.3).astype(np.uint8)
    table = pd.DataFrame(labels, columns=list(CLASSES)).assign(patient=np.arange(images) // 2)
    probabilities = 1 / (1 + np.exp(-random.normal(size=labels.shape) - labels))
    return table, table["patient"].to_numpy() % FOLDS, probabilities


def result_of(name: str, probabilities: np.ndarray) -> ChangeResult:
    record = RunRecord(60.0, 2, "cpu (AVX512)", {"torch": "2", "timm": "1"}, "code")
    return ChangeResult(Change(name, {}, ""), probabilities, [record] * FOLDS)


def test_equal_probabilities_have_no_difference_and_a_p_value_of_one() -> None:
    table, folds, probabilities = simulated()
    found = change_metrics([result_of("baseline", probabilities), result_of("same", probabilities)], table, folds, 200)
    assert list(found.loc["same", ["difference", "low", "high", "p_value"]]) == [0, 0, 0, 1]
    assert found.loc["same", "minutes"] == 3


def test_images_are_ranked_within_their_fold_only() -> None:
    table, folds, probabilities = simulated()
    labels, samples = label_matrix(table), bootstrap_patients(table["patient"], 200, 1)
    # The transformation differs between folds and keeps the order within each.
    shifted = probabilities ** (1 + folds[:, None])
    expected = auroc_over_folds(labels, probabilities, folds, samples)
    found = auroc_over_folds(labels, shifted, folds, samples)
    np.testing.assert_array_equal(found.samples, expected.samples)
    # With equal calibration in all folds, the interval is about as wide as that of the pooled AUROC.
    pooled = auroc_and_average_precision(labels, probabilities, samples)[0]
    widths = [np.diff(auroc.interval()).mean() for auroc in (expected, pooled)]
    assert widths[0] == pytest.approx(widths[1], rel=0.1)


def test_conclusions_separate_improvements_deteriorations_and_no_difference() -> None:
    table, folds, probabilities = simulated()
    better = probabilities + 0.5 * label_matrix(table)
    noise = probabilities + np.random.default_rng(1).normal(0, 0.005, probabilities.shape)
    named = {"baseline": probabilities, "other-seed": noise, "good": better, "bad": -probabilities, "none": noise}
    found = change_metrics([result_of(name, each) for name, each in named.items()], table, folds, 200)
    improved, deteriorated, unchanged = conclusions(found)
    assert "- good: +" in improved
    assert "- bad: -" in deteriorated
    assert "- none: " in unchanged
    assert not any("other-seed" in section for section in (improved, deteriorated, unchanged))


def test_the_report_has_the_setup_the_metrics_and_the_unfinished_changes(
    made: StudyConfig, metrics: pd.DataFrame, tmp_path: Path
) -> None:
    never = Change("never", {"lr": 0.5}, "not run")
    write_report(read_results(made, [TWO_SEEDS, never]), tmp_path / "STUDY.md")
    text = (tmp_path / "STUDY.md").read_text()
    assert "120 images of 60 patients (raw) in 3 folds" in text
    assert "test_resnet (none weights) at 32 px" in text
    assert "| baseline | 0." in text
    assert "| two-seeds | 0." in text
    assert "## Not run\n\n- never" in text
    assert "`{seeds: [1, 2]}`; an ensemble" in text


def test_rows_trained_with_other_code_are_named() -> None:
    _, _, probabilities = simulated()
    results = [result_of(name, probabilities) for name in ("baseline", "one", "two")]
    assert code_warning(results) == []
    results[2].records[0] = results[2].records[0]._replace(code="another")
    assert code_warning(results) == ["**Warning:** trained with other code than the baseline: two."]
    results[0].records[0] = results[0].records[0]._replace(code="another")
    assert code_warning(results) == ["**Warning:** the baseline's folds were trained with different code."]


def test_one_change_that_fails_stops_no_other(
    made: StudyConfig, trained: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unknown = Change("unknown", {"models": ["no_such_network"]}, "cannot be built")
    assert run_changes(made, [unknown, BASELINE]) == ["unknown"]
    assert "warning: unknown: " in capsys.readouterr().err


def test_the_error_of_a_failed_stage_is_reported_and_its_time_adds_up(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"sample failed: params.yaml not found.*sample\.log"):
        study.run_timed_stage("sample", tmp_path)
    seconds = study.seconds_of("sample", tmp_path)
    assert seconds > 0
    with pytest.raises(InputError):
        study.run_timed_stage("sample", tmp_path)
    assert study.seconds_of("sample", tmp_path) > 1.2 * seconds


def test_a_stopped_study_leaves_no_stage_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: list[subprocess.Popen[bytes]]
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "write_json", stop)
    monkeypatch.setattr(study, "TIMER_INTERVAL", 0.01)
    with pytest.raises(KeyboardInterrupt):
        study.run_timed_stage("sample", tmp_path)
    (process,) = processes
    assert process.returncode == -signal.SIGTERM


@pytest.mark.parametrize("change", [BASELINE, *CHANGES], ids=lambda change: change.name)
def test_every_change_is_valid_and_differs_from_the_baseline(change: Change) -> None:
    values = baseline_values(Path("raw"), Path("weights"), 96, "tf_efficientnet_lite0", 8)
    base, params = params_of(BASELINE, values), params_of(change, values)
    differing = {name for name in type(base).model_fields if getattr(base, name) != getattr(params, name)}
    assert differing == set(change.params)


def test_names_of_changes_are_distinct() -> None:
    assert len({change.name for change in CHANGES}) == len(CHANGES)


def test_a_partial_section_keeps_the_other_values() -> None:
    values: Values = {"lr": 1, "loss": {"focal_gamma": 0, "label_smoothing": 0.1}}
    merged = merge(values, {"loss": {"focal_gamma": 2}})
    assert merged == {"lr": 1, "loss": {"focal_gamma": 2, "label_smoothing": 0.1}}
    assert values["loss"]["focal_gamma"] == 0


def test_a_change_with_an_unknown_parameter_is_an_error() -> None:
    values = baseline_values(Path("raw"), Path("weights"), 96, "tf_efficientnet_lite0", 8)
    with pytest.raises(InputError, match="the change typo is not valid:"):
        params_of(Change("typo", {"loss": {"focal_gama": 2}}, ""), values)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--raw-dir", "nowhere"], "there is no folder nowhere; set --raw-dir"),
        (["--raw-dir", ".", "--weights-dir", "nowhere"], "there is no folder nowhere; set --weights-dir"),
        (["--only", "no-mixupp"], "there is no change no-mixupp; did you mean no-mixup"),
        (["--epochs", "1", "--report"], "the change short-road is not valid: "),
        (["--folder", "empty", "--report"], "has no data for these options; run without --report first"),
    ],
)
def test_mistakes_are_reported_before_any_work(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["study", *arguments])
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        main()
    assert list(tmp_path.iterdir()) == []


def test_the_list_has_every_change(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["study", "--list"])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [change.name for change in CHANGES]
