"""Print the model card of the run whose metrics are in `metrics/`: data, training, results and limitations.

    python -m tools.model_card           print it
    python -m tools.model_card --write   write it to MODEL_CARD.md

Reads only `metrics/` and `params.yaml`, which are in git, so it works in a clone without data.
"""

import argparse
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from cxr.core.errors import InputError, run_as_script
from cxr.core.files import atomic_write
from cxr.core.labels import CLASSES
from cxr.core.params import PARAMS_FILE, read_params
from cxr.core.paths import METRICS
from cxr.evaluation.schema import Interval, Metrics, nan_to_none
from cxr.models.members import list_members
from cxr.params import Params
from cxr.reporting.report import list_group_names, mean_error_if_calibrated
from cxr.reporting.text import attribute_title, format_ci, format_number

CARD = Path("MODEL_CARD.md")
TEMPLATE = Path(__file__).with_suffix(".md")
RATES = ("sensitivity", "specificity", "ppv", "npv")


def render_card(metrics: Metrics, params: Params) -> str:
    """Return the card as Markdown.

    Raises:
        InputError: if the metrics are from other networks than `params` names.
    """
    networks = [str(member) for member in list_members(params.models, params.seeds)]
    evaluated = list(metrics.members.members)
    if networks != evaluated:
        raise InputError(
            f"{METRICS} is from {', '.join(evaluated)}, but {PARAMS_FILE} names {', '.join(networks)}; run `dvc repro`"
        )
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # noqa: S701 (Markdown)
    environment.filters |= {
        "ci": format_ci,
        "number": format_number,
        "code": "`{}`".format,
        "attribute": attribute_title,
    }
    points = metrics.operating_points.classes.values()
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        **dict(metrics),
        params=params,
        networks=networks,
        synthetic=metrics.classes.synthetic,
        class_names=CLASSES,
        group_names=list_group_names(metrics.data),
        error_if_calibrated=format_number(nan_to_none(mean_error_if_calibrated(metrics))),
        children=metrics.subgroups.root["age"].groups.get("under 18"),
        has_tta=any(params.tta.model_dump().values()),
        ranges={rate: value_range([getattr(point, rate) for point in points]) for rate in RATES},
    )


def value_range(intervals: list[Interval]) -> str:
    """Return the lowest and the highest of the defined values."""
    values = [one.value for one in intervals if one.value is not None]
    return f"{min(values):.2f} to {max(values):.2f}" if values else "undefined"


def main() -> None:
    """Print the card, or write it."""
    parser = argparse.ArgumentParser(
        "python -m tools.model_card", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help=f"write the card to {CARD} instead of printing it")
    args = parser.parse_args()
    card = render_card(Metrics.read(METRICS), read_params(Params))
    if not args.write:
        print(card)
        return
    with atomic_write(CARD) as temporary:
        temporary.write_text(card + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_as_script(main)
