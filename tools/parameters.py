"""Print the table of docs/parameters.md, generated from the parameter models and params.yaml.

With --write, replace the table in docs/parameters.md.
"""

import argparse
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cxr.core.errors import InputError, run_as_script
from cxr.core.files import atomic_write
from cxr.core.params import read_params
from cxr.params import STAGES, Params

EXAMPLES = """examples:
  python -m tools.parameters
  python -m tools.parameters --write
"""
PAGE = Path("docs/parameters.md")
MARKERS = ("<!-- parameters -->\n", "<!-- end of parameters -->\n")


def markdown_table(values: Params) -> str:
    """Return a Markdown table, a row for each parameter in the order of the stages, with the values of `values`."""
    names = dict.fromkeys(name for section in STAGES.values() for name in section.model_fields)
    rows = [row for name in names for row in _rows(name, Params.model_fields[name], getattr(values, name))]
    return "\n".join(["| parameter | demo | stages | description |", "| --- | --- | --- | --- |", *rows]) + "\n"


def _rows(name: str, field: FieldInfo, value: Any) -> list[str]:
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return [_row(f"{name}.{inner}", fields[inner], getattr(value, inner)) for inner in fields]
    return [_row(name, field, value)]


def _row(name: str, field: FieldInfo, value: Any) -> str:
    stages = ", ".join(stages_of(name))
    return f"| `{name}` | {_format(value)} | {stages} | {field.description}{_choices(field)} |"


def stages_of(name: str) -> list[str]:
    """Return the stages that use the parameter `name`, or the section that contains it."""
    section = name.partition(".")[0]
    return [stage for stage, params in STAGES.items() if section in params.model_fields]


def _format(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _choices(field: FieldInfo) -> str:
    choices = [f"`{choice}`" for choice in get_args(field.annotation) if isinstance(choice, str | int)]
    return f" ({', '.join(choices)})" if choices else ""


def replace_table(text: str, table: str) -> str:
    """Return `text` with `table` between the two markers.

    Raises:
        InputError: if the markers are missing.
    """
    before, first, rest = text.partition(MARKERS[0])
    _, last, after = rest.partition(MARKERS[1])
    if not (first and last):
        raise InputError(f"{PAGE} has no line {MARKERS[0].strip()} followed by {MARKERS[1].strip()}")
    return before + first + table + last + after


def main() -> None:
    """Print the table, or write it to `PAGE`."""
    parser = argparse.ArgumentParser(
        "python -m tools.parameters",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--write", action="store_true", help=f"write to {PAGE}")
    args = parser.parse_args()
    table = markdown_table(read_params(Params))
    if not args.write:
        print(table, end="")
        return
    text = replace_table(PAGE.read_text(encoding="utf-8"), table)
    with atomic_write(PAGE) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run_as_script(main)
