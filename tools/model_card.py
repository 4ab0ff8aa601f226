"""Print the model card of the run whose metrics are in `metrics/`: what it is for, how good it is, and its limits.

python -m tools.model_card           print it
python -m tools.model_card --write   put it into MODEL_CARD.md

Read from `metrics/` and `params.yaml` alone, which git has, so that a clone without data makes the same card.
"""

import argparse
import json
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from cxr.core.errors import InputError, run_as_script
from cxr.core.files import atomic_write
from cxr.core.labels import CLASSES
from cxr.core.params import PARAMS_FILE, read_params
from cxr.core.paths import METRICS, model_file
from cxr.evaluation.summary import Report
from cxr.params import Params
from cxr.reporting.svg import format_ci

CARD = Path("MODEL_CARD.md")
TEMPLATE = Path(__file__).with_suffix(".md")
TOLD = ("test", "classes", "intervals", "operating_points", "calibration", "subgroups", "members", "duplicates", "data")
RATES = ("sensitivity", "specificity", "ppv", "npv")


def read_metrics(folder: Path) -> dict[str, Report]:
    """The metrics that the card tells, by the name of their file; FileNotFoundError where one is not there."""
    return {name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in TOLD}


def card(metrics: dict[str, Report], params: Params) -> str:
    """The card as Markdown.

    Raises:
        InputError: where the metrics are of other networks than `params` names.
    """
    networks, measured = members(params), list(metrics["members"]["members"])
    if networks != measured:
        raise InputError(
            f"{METRICS} is of {', '.join(measured)}, and {PARAMS_FILE} names {', '.join(networks)}: run `dvc repro`"
        )
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # noqa: S701 (Markdown)
    environment.filters |= {"words": format_ci, "code": "`{}`".format, "percent": percent}
    points = metrics["operating_points"]["classes"]
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        **metrics,
        params=params,
        networks=networks,
        synthetic=metrics["classes"]["synthetic"],
        class_names=CLASSES,
        children=metrics["subgroups"]["age"]["groups"].get("under 18", {}).get("images", 0),
        has_views=any(params.tta.model_dump().values()),
        rates={rate: span([point[rate]["value"] for point in points.values()]) for rate in RATES},
    )


def percent(share: float) -> str:
    """A share in whole percent."""
    return f"{share * 100:.0f} %"


def members(params: Params) -> list[str]:
    """The names of the networks that `params` asks for, in the order of the metrics."""
    return [model_file(model, seed).stem for model in params.models for seed in params.seeds]


def span(values: list[float | None]) -> str:
    """The lowest and the highest of the values that are defined."""
    known = [value for value in values if value is not None]
    return f"{min(known):.2f} to {max(known):.2f}" if known else "undefined to undefined"


def main() -> None:
    """Print the card, or write it."""
    parser = argparse.ArgumentParser(
        "python -m tools.model_card", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help=f"put it into {CARD}")
    is_to_be_written = parser.parse_args().write
    text = card(read_metrics(METRICS), read_params(Params))
    if not is_to_be_written:
        print(text)
        return
    with atomic_write(CARD) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_as_script(main)
