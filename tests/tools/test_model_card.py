"""The model card of the committed metrics, and of computed metrics."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from cxr.core.errors import InputError
from cxr.core.labels import CLASSES
from cxr.core.params import read_params
from cxr.evaluation.schema import DataSummary, Duplicates, Interval, Metrics, ValidationAndTest
from cxr.params import Params
from tests.fixtures.project import ROOT
from tests.fixtures.reported import WITHOUT_POSITIVES, make_metrics
from tests.fixtures.stages import write_params
from tools import model_card
from tools.model_card import render_card, value_range

UNDEFINED = Interval(value=None, low=None, high=None)


@pytest.fixture(scope="module")
def metrics() -> Metrics:
    return make_metrics()


@pytest.fixture
def params(tmp_path: Path) -> Params:
    return params_with(tmp_path)


def params_with(folder: Path, **changes: Any) -> Params:
    write_params(folder, **{"models": ["resnet10t"], "seeds": [1, 2], **changes})
    return read_params(Params, folder / "params.yaml")


def row_of(text: str, name: str) -> list[str]:
    """Return the cells of the one table row that starts with `name`."""
    (row,) = re.findall(rf"^\| {re.escape(name)} \|(.*)\|$", text, re.MULTILINE)
    return [cell.strip() for cell in row.split("|")]


def test_the_committed_card_is_that_of_the_committed_metrics() -> None:
    text = (ROOT / "MODEL_CARD.md").read_text(encoding="utf-8")
    card = render_card(Metrics.read(ROOT / "metrics"), read_params(Params, ROOT / "params.yaml"))
    assert text == card + "\n", "run `python -m tools.model_card --write`"
    assert len(text.splitlines()) < 140


def test_every_class_has_its_metrics(metrics: Metrics, params: Params) -> None:
    text = render_card(metrics, params)
    for name in CLASSES:
        positives, auroc, sensitivity, specificity = row_of(text, name.replace("_", " "))
        assert positives == str(metrics.classes.classes[name].positives)
        if name == WITHOUT_POSITIVES:
            assert (auroc, sensitivity) == ("undefined", "undefined")
            continue
        expected = metrics.intervals.auroc[name]
        assert auroc == f"{expected.value:.3f} ({expected.low:.3f} to {expected.high:.3f})"
        for cell, rate in ((sensitivity, "sensitivity"), (specificity, "specificity")):
            value = getattr(metrics.operating_points.classes[name], rate).value
            assert cell.startswith(f"{value:.2f} (")
    mean = metrics.intervals.auroc["mean_14"]
    assert row_of(text, "mean of 13 findings")[0].startswith(f"{mean.value:.3f} ({mean.low:.3f}")


def test_the_card_needs_metrics_and_parameters_only(
    metrics: Metrics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "metrics").mkdir()
    metrics.write(tmp_path / "metrics")
    params = params_with(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["model_card"])
    model_card.main()
    printed = capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["model_card", "--write"])
    model_card.main()
    written = (tmp_path / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert written == printed == render_card(metrics, params) + "\n"


def test_metrics_of_another_version_give_one_message(
    metrics: Metrics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "metrics").mkdir()
    metrics.write(tmp_path / "metrics")
    path = tmp_path / "metrics/intervals.json"
    path.write_text(path.read_text(encoding="utf-8").replace("bootstrap_samples", "resamples"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["model_card"])
    with pytest.raises(InputError, match=r"metrics/intervals.json was written by another version"):
        model_card.main()


@pytest.mark.parametrize("synthetic", [True, False])
def test_synthetic_images_are_named_at_the_top(params: Params, synthetic: bool) -> None:
    text = render_card(make_metrics(synthetic=synthetic), params)
    assert ("Synthetic images." in "\n".join(text.splitlines()[:5])) == synthetic
    assert ("synthetic" in text.lower()) == synthetic
    assert "Not for clinical use" in text


def test_models_seeds_and_the_official_split_are_stated(metrics: Metrics, tmp_path: Path) -> None:
    split = {"method": "official", "train": 0.7, "val": 0.1, "test": 0.2}
    text = render_card(metrics, params_with(tmp_path, split=split))
    assert text.startswith("# Model card: resnet10t-1, resnet10t-2\n")
    assert "An ensemble of 2 networks" in text
    assert "`resnet10t` from timm" in text
    assert "The test split is the data set's own" in text
    for name, title in (("train", "train"), ("val", "validation"), ("test", "test")):
        part = metrics.data.splits[name]
        assert row_of(text, title)[:2] == [f"{part.images:,}", f"{part.patients:,}"]


def test_groups_optimism_and_underdiagnosis_are_stated(metrics: Metrics, params: Params) -> None:
    optimism = metrics.optimism.model_copy(update={"f1": ValidationAndTest(validation=0.652, test=0.509)})
    prevalence = metrics.prevalence.model_copy(update={"shifted": ["Pleural_Thickening"]})
    text = render_card(metrics.model_copy(update={"optimism": optimism, "prevalence": prevalence}), params)
    assert "the mean F1 is\n0.652 there and 0.509 on test" in text
    assert "That of Pleural Thickening in test differs from that in validation by more than a factor of\n1.5" in text
    for group, count in metrics.data.splits["val"].groups["age"].items():
        assert row_of(text, f"age: {group}")[1] == str(count)
    rate = metrics.fairness.groups["view"]["AP"].false_positive_rate["No Finding"]
    assert f"- view position: AP {rate.value:.2f} ({rate.low:.2f} to {rate.high:.2f}), PA " in text
    assert "- sex: too few images.\n- age:" in text
    assert "Radiologists' labels." not in text


def test_the_citation_is_that_of_the_data_set(metrics: Metrics, params: Params) -> None:
    chexpert = DataSummary(name="CheXpert", splits=metrics.data.splits)
    assert "Irvin et al." in render_card(metrics.model_copy(update={"data": chexpert}), params)
    assert "Wang, Peng, Lu" in render_card(metrics, params)


def test_undefined_values_are_named(metrics: Metrics, params: Params) -> None:
    without_pairs = metrics.model_copy(update={"duplicates": Duplicates(pairs=[])})
    text = render_card(without_pairs, params)
    assert "- sex: undefined, since fewer than two groups have enough images." in text
    assert "may show the same radiograph" not in text
    assert value_range([UNDEFINED, Interval(value=0.5, low=0, high=1), Interval(value=0.25, low=0, high=1)]) == (
        "0.25 to 0.50"
    )
    assert value_range([UNDEFINED]) == "undefined"


def test_metrics_of_other_networks_are_an_error(metrics: Metrics, tmp_path: Path) -> None:
    message = r"metrics is from resnet10t-1, resnet10t-2, but params.yaml names resnet10t-7; run `dvc"
    with pytest.raises(InputError, match=message):
        render_card(metrics, params_with(tmp_path, seeds=[7]))
