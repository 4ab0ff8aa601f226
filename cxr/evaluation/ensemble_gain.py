"""Mean AUROC of each member, and the ensemble's gain over it."""

from collections.abc import Mapping, Sequence

import numpy as np

from cxr.evaluation.bootstrap import BootstrapDistribution, BootstrapSamples, difference
from cxr.evaluation.class_values import MEANS, means, with_ci
from cxr.evaluation.metrics import Labels, PerClass, Scores
from cxr.evaluation.ranking import auroc_and_average_precision
from cxr.evaluation.schema import (
    Difference,
    EnsembleMetrics,
    MeanAndDeviation,
    MemberMetrics,
    Members,
    ModelMetrics,
    nan_to_none,
)
from cxr.models.members import Member


def ensemble_gain(
    labels: Labels, by_member: Mapping[Member, Scores], ensemble: BootstrapDistribution, samples: BootstrapSamples
) -> Members:
    """Compute the mean AUROC of the ensemble, of each member, and of each model over its seeds.

    The gain is the ensemble's mean AUROC less the member's, with interval and p-value of `difference`. For an ensemble
    of one member it is exactly 0, with p = 1.

    Args:
        labels: uint8 [images, 15].
        by_member: predicted probabilities of each member, [images, 15].
        ensemble: AUROC of the ensemble for the 15 classes, on `samples`.
        samples: bootstrap samples of the same images.
    """
    of_ensemble = means(ensemble)
    # A single member is the ensemble: computing its metrics again would double the time.
    aurocs = dict.fromkeys(by_member, of_ensemble)
    if len(by_member) > 1:
        for member, scores in by_member.items():
            aurocs[member] = means(auroc_and_average_precision(labels, scores, samples)[0])
    by_model: dict[str, list[PerClass]] = {}
    for member, auroc in aurocs.items():
        by_model.setdefault(member.model, []).append(auroc.value)
    return Members(
        ensemble=EnsembleMetrics(auroc=with_ci(MEANS, of_ensemble)),
        members={str(member): _member_metrics(member, auroc, of_ensemble) for member, auroc in aurocs.items()},
        models={model: _model_metrics(values) for model, values in by_model.items()},
    )


def _member_metrics(member: Member, auroc: BootstrapDistribution, ensemble: BootstrapDistribution) -> MemberMetrics:
    rows = zip(MEANS, *difference(auroc, ensemble), strict=True)
    gain = {
        name: Difference(**{key: nan_to_none(value) for key, value in zip(Difference.model_fields, row, strict=True)})
        for name, *row in rows
    }
    return MemberMetrics(model=member.model, seed=member.seed, auroc=with_ci(MEANS, auroc), gain=gain)


def _model_metrics(over_seeds: Sequence[PerClass]) -> ModelMetrics:
    """Return mean and standard deviation (n - 1) over the seeds; one seed has no standard deviation."""
    values = np.array(over_seeds)
    deviations = values.std(axis=0, ddof=1) if len(values) > 1 else np.full(len(MEANS), np.nan)
    columns = zip(MEANS, values.mean(axis=0), deviations, strict=True)
    auroc = {
        name: MeanAndDeviation(mean=nan_to_none(mean), standard_deviation=nan_to_none(deviation))
        for name, mean, deviation in columns
    }
    return ModelMetrics(seeds=len(values), auroc=auroc)
