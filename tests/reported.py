"""A run to report, measured by the real code on made-up probabilities: no training, and anything can be varied."""

from typing import Any

import numpy as np
import pandas as pd

from cxr.core.labels import CLASSES
from cxr.evaluation import calibration, localisation, summary
from cxr.evaluation.bootstrap import auroc_and_average_precision, bootstrap_patients
from cxr.evaluation.ensemble_gain import ensemble_gain
from cxr.evaluation.thresholds import choose_thresholds
from cxr.models.members import Member
from cxr.reporting.examples import Examples, Predicted, choose_examples
from cxr.reporting.report import Run

MEMBERS = (Member("resnet10t", 1), Member("resnet10t", 2))
WITHOUT_POSITIVES = "Hernia"


def make_run(images: int = 150, *, synthetic: bool = True, members: int = 2, boxes: bool = True) -> Run:
    """Test images of `WITHOUT_POSITIVES` have none; the map of each sample is a blob, the first a map of zeros."""
    random = np.random.default_rng(3)
    labels = (random.random((images, len(CLASSES))) < 0.3).astype(np.uint8)
    labels[:, CLASSES.index(WITHOUT_POSITIVES)] = 0
    each = {member: _scores(labels, random) for member in MEMBERS[:members]}
    probabilities = np.mean(list(each.values()), axis=0)
    table = _table(labels)
    fitted, thresholds = calibration.fit(labels, probabilities), choose_thresholds("f1", labels, probabilities, 0.9)
    predicted = Predicted(table, labels, probabilities, fitted.apply(probabilities), fitted.apply(thresholds[None])[0])
    drawn = bootstrap_patients(table["patient"], 100, 1)
    ranks = auroc_and_average_precision(labels, probabilities, drawn)
    measured = summary.class_metrics(labels, probabilities, thresholds)
    errors = summary.calibration_errors(labels, probabilities, fitted, 5)
    boxed = _boxes(table) if boxes else _boxes(table)[:0]
    scored = {kind: random.random((len(boxed), len(localisation.MEASURES))) for kind in ("layer_cam", "random")}
    pair = {"image_a": "a.png", "split_a": "train", "image_b": "b.png", "split_b": "test", "correlation": 0.99}
    whole = pd.concat([table.assign(split=split) for split in ("train", "val", "test")], ignore_index=True)
    metrics = {
        "test": summary.summary_metrics(measured, errors, images, synthetic),
        "classes": {"synthetic": synthetic, "classes": summary.by_class(measured)},
        "intervals": summary.intervals(*ranks, drawn),
        "operating_points": summary.operating_points(labels, probabilities >= thresholds, thresholds, "f1", drawn),
        "calibration": {"bins": 5, "classes": errors.to_dict("index")},
        "subgroups": summary.subgroups(table, labels, probabilities, drawn),
        "members": ensemble_gain(labels, each, ranks[0], drawn),
        "localisation": localisation.report(
            scored if boxes else {}, boxed, drawn.of(boxed["place"].to_numpy(np.int64))
        ),
        "data": {"name": "NIH ChestX-ray14", "splits": summary.splits(whole)},
        "duplicates": {"pairs": [{**pair, "distance": 2}]},
    }
    return Run(
        predicted=predicted,
        samples=_samples(predicted, random),
        metrics=metrics,
        sample=whole,
        official=pd.DataFrame({"image": [], "list": []}, dtype=str),
        networks={str(member): _description(member) for member in each},
        params={"batch_size": 16, "tta": {"hflip": True, "translate": 0.0}},
        curves=pd.concat([_curve(member) for member in each]),
        boxes=boxed,
    )


def _scores(labels: Any, random: np.random.Generator) -> Any:
    return 1 / (1 + np.exp(-(2.0 * labels - 2 + random.normal(size=labels.shape))))


def _table(labels: Any) -> pd.DataFrame:
    count = len(labels)
    about = pd.DataFrame({"image": [f"{number:08d}_000.png" for number in range(count)]})
    about = about.assign(patient=np.arange(count) // 2, age=np.arange(count) % 90, sex="F", view="PA")
    about.loc[::2, "view"] = "AP"
    return pd.concat([about, pd.DataFrame(labels, columns=list(CLASSES))], axis=1)


def _boxes(table: pd.DataFrame) -> pd.DataFrame:
    some = table[["image", "patient"]].iloc[:8].assign(place=range(8), x=0.25, y=0.5, width=0.25, height=0.125)
    some["class"] = ["Mass", "Nodule"] * 4
    return some


def _samples(predicted: Predicted, random: np.random.Generator) -> Examples:
    chosen = choose_examples(predicted.labels, predicted.after, predicted.thresholds)
    pixels = random.integers(0, 256, (len(chosen), 32, 32)).astype(np.uint8)
    blob = np.outer(np.hanning(32), np.hanning(32))
    return Examples(chosen, pixels, [blob * 0, *[blob] * (len(chosen) - 1)], "layer_cam")


def _description(member: Member) -> dict[str, Any]:
    return {
        "model": member.model,
        "seed": member.seed,
        "image_size": 32,
        "best_epoch": 2,
        "params": {"lr": 0.00123, "loss": {"focal_gamma": 0.0}, "compile": False},
    }


def _curve(member: Member) -> pd.DataFrame:
    epochs = pd.DataFrame({"member": str(member), "epoch": [1, 2, 3], "train_loss": [0.5, 0.4, 0.3]})
    return epochs.assign(val_loss=[0.5, 0.42, 0.47], val_auroc=[0.6, 0.8, 0.7])
