"""What each member of the ensemble is alone, and what the ensemble gains over it."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cxr.evaluation.bootstrap import BootstrapDistribution, BootstrapSamples, auroc_and_average_precision, difference
from cxr.evaluation.metrics import Labels, PerClass, Scores
from cxr.evaluation.summary import MEANS, Report, means, nan_to_none, with_ci
from cxr.models.members import Member


def ensemble_gain(
    labels: Labels, probabilities: Mapping[Member, Scores], ensemble: BootstrapDistribution, resamples: BootstrapSamples
) -> Report:
    """Mean AUROC of the ensemble, of each member, and of each model over its seeds, as JSON has it.

    The gain is the ensemble's less the member's, with interval and p-value of `difference`: exactly 0 throughout,
    and p = 1, where there is one member only.

    Args:
        labels: uint8 [images, 15].
        probabilities: of each member, [images, 15].
        ensemble: the AUROC of the ensemble, of the 15 classes in the same resamples.
        resamples: of the same images.
    """
    whole = means(ensemble)
    # One member is the ensemble: measuring it again would double what evaluate's measures cost.
    areas = dict.fromkeys(probabilities, whole)
    if len(probabilities) > 1:
        for member, scores in probabilities.items():
            areas[member] = means(auroc_and_average_precision(labels, scores, resamples)[0])
    by_model: dict[str, list[PerClass]] = {}
    for member, area in areas.items():
        by_model.setdefault(member.model, []).append(area.value)
    return {
        "ensemble": {"auroc": with_ci(tuple(MEANS), whole)},
        "members": {
            str(member): {**member._asdict(), "auroc": with_ci(tuple(MEANS), area), "gain": _gain(area, whole)}
            for member, area in areas.items()
        },
        "models": {model: _over_seeds(np.array(values)) for model, values in by_model.items()},
    }


def _gain(member: BootstrapDistribution, ensemble: BootstrapDistribution) -> Report:
    found = difference(member, ensemble)
    return {
        name: {figure: nan_to_none(values[place]) for figure, values in found._asdict().items()}
        for place, name in enumerate(MEANS)
    }


def _over_seeds(values: NDArray[np.float64]) -> Report:
    """Mean and standard deviation (over n - 1) of the trainings, float [seeds, means]; one alone has no deviation."""
    deviations = values.std(axis=0, ddof=1) if len(values) > 1 else np.full(len(MEANS), np.nan)
    columns = zip(MEANS, values.mean(axis=0), deviations, strict=True)
    auroc = {
        name: {"mean": nan_to_none(mean), "standard_deviation": nan_to_none(spread)} for name, mean, spread in columns
    }
    return {"seeds": len(values), "auroc": auroc}
