"""The model card, held to the committed metrics, and told of runs that are played."""

import json
import re
import shutil
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from cxr.core.errors import InputError
from cxr.core.labels import CLASSES
from cxr.core.params import read_params
from cxr.params import Params
from tests.fixtures.project import ROOT
from tests.fixtures.stages import write_params
from tools import model_card
from tools.model_card import card, read_metrics, span

METRICS = read_metrics(ROOT / "metrics")
PARAMS = read_params(Params, ROOT / "params.yaml")


def load(name: str) -> Any:
    return json.loads((ROOT / f"metrics/{name}.json").read_text(encoding="utf-8"))


def row_of(text: str, name: str) -> list[str]:
    """The cells of the one row of a table that starts with `name`."""
    (row,) = re.findall(rf"^\| {re.escape(name)} \|(.*)\|$", text, re.MULTILINE)
    return [cell.strip() for cell in row.split("|")]


def told(folder: Path, metrics: dict[str, Any], **changes: Any) -> str:
    write_params(folder, **changes)
    return card(metrics, read_params(Params, folder / "params.yaml"))


def test_the_committed_card_is_that_of_the_committed_metrics() -> None:
    text = (ROOT / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert text == card(METRICS, PARAMS) + "\n", "run `python -m tools.model_card --write`"
    assert len(text.splitlines()) < 120


def test_every_class_has_its_numbers() -> None:
    text, intervals, points = card(METRICS, PARAMS), load("intervals"), load("operating_points")["classes"]
    for name in CLASSES:
        area, sensitivity = intervals["auroc"][name], points[name]["sensitivity"]
        cells = row_of(text, name.replace("_", " "))
        assert cells[0] == str(round(load("classes")["classes"][name]["positives"]))
        assert cells[1] == "{value:.3f} ({low:.3f} to {high:.3f})".format(**area)
        assert cells[2] == "{value:.2f} ({low:.2f} to {high:.2f})".format(**sensitivity)
    mean = intervals["auroc"]["mean_14"]
    assert row_of(text, "mean of 14 findings")[0].startswith(f"{mean['value']:.3f} ({mean['low']:.3f}")


def test_it_needs_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(ROOT / "metrics", tmp_path / "metrics")
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["model_card"])
    model_card.main()
    printed = capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["model_card", "--write"])
    model_card.main()
    written = (tmp_path / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert written == printed == (ROOT / "MODEL_CARD.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("synthetic", [True, False])
def test_drawings_are_called_so_and_films_are_not(synthetic: bool) -> None:
    metrics = METRICS | {"classes": METRICS["classes"] | {"synthetic": synthetic}}
    text = card(metrics, PARAMS)
    assert ("Synthetic images." in "\n".join(text.splitlines()[:5])) == synthetic
    assert ("drawn by a program" in text) == synthetic
    assert "Not for clinical use" in text


def test_an_ensemble_on_nihs_split_is_told(tmp_path: Path) -> None:
    metrics = deepcopy(METRICS)
    names = ["a-1", "a-2", "b_c-1", "b_c-2"]
    metrics["members"]["members"] = {name: {} for name in names}
    split = {"method": "official", "train": 0.7, "val": 0.1, "test": 0.2}
    text = told(tmp_path, metrics, models=["a", "b_c"], seeds=[1, 2], split=split)
    assert text.startswith("# Model card: a-1, a-2, b_c-1, b_c-2\n")
    assert "An ensemble of 4 networks" in text
    assert "`a`, `b_c` of timm" in text
    assert "Test is the data set's own" in text
    for name, title in (("train", "train"), ("val", "validation"), ("test", "test")):
        part = load("data")["splits"][name]
        assert row_of(text, title)[:2] == [f"{part['images']:,}", f"{part['patients']:,}"]


def test_what_is_undefined_is_called_so() -> None:
    metrics, nothing = deepcopy(METRICS), {"value": None, "low": None, "high": None}
    metrics["intervals"]["auroc"]["Hernia"] = nothing
    metrics["operating_points"]["classes"]["Hernia"]["ppv"] = nothing
    metrics["subgroups"]["sex"]["largest_gap"]["mean"] = {"highest": None, "lowest": None, **nothing}
    metrics["test"]["auroc"]["classes_in_mean_14"] = 13
    text = card(metrics, PARAMS)
    assert row_of(text, "Hernia")[1] == "not defined"
    assert "- sex: fewer than two groups can be compared." in text
    assert row_of(text, "mean of 13 findings")
    assert span([None, 0.5, 0.25]) == "0.25 to 0.50"
    assert span([None]) == "undefined to undefined"


def test_metrics_of_other_networks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"metrics is of resnet10t-1, and params.yaml names resnet10t-7: run `dvc"):
        told(tmp_path, METRICS, seeds=[7])
