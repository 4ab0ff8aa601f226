"""Generate the table of docs/parameters.md from the parameter models and `params.yaml`.

python -m tools.parameters           print the table
python -m tools.parameters --write   write it into docs/parameters.md, between its two marks
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

PAGE = Path("docs/parameters.md")
MARKS = ("<!-- parameters -->\n", "<!-- end of parameters -->\n")


def table(values: Params) -> str:
    """A row of Markdown for each parameter, in the order of the stages: name, value in `values`, readers, meaning."""
    names = dict.fromkeys(name for section in STAGES.values() for name in section.model_fields)
    rows = [row for name in names for row in _rows(name, Params.model_fields[name], getattr(values, name))]
    return "\n".join(["| parameter | demo | stages | description |", "| --- | --- | --- | --- |", *rows]) + "\n"


def _rows(name: str, field: FieldInfo, value: Any) -> list[str]:
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return [_row(f"{name}.{inner}", fields[inner], getattr(value, inner)) for inner in fields]
    return [_row(name, field, value)]


def _row(name: str, field: FieldInfo, value: Any) -> str:
    return f"| `{name}` | {_shown(value)} | {', '.join(readers(name))} | {field.description}{_choices(field)} |"


def readers(name: str) -> list[str]:
    """The stages that are handed the parameter `name`, or the section that it is in."""
    section = name.partition(".")[0]
    return [stage for stage, params in STAGES.items() if section in params.model_fields]


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _choices(field: FieldInfo) -> str:
    choices = [f"`{choice}`" for choice in get_args(field.annotation) if isinstance(choice, str | int)]
    return f" ({', '.join(choices)})" if choices else ""


def with_table(text: str, rows: str) -> str:
    """`text` with `rows` between the two marks; InputError where it has no marks."""
    before, first, rest = text.partition(MARKS[0])
    _, last, after = rest.partition(MARKS[1])
    if not (first and last):
        raise InputError(f"{PAGE} has no line {MARKS[0].strip()} with {MARKS[1].strip()} after it")
    return before + first + rows + last + after


def main() -> None:
    """Print the table, or write it."""
    parser = argparse.ArgumentParser(
        "python -m tools.parameters", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="put it into PAGE.md")
    rows = table(read_params(Params))
    if not parser.parse_args().write:
        print(rows, end="")
        return
    text = with_table(PAGE.read_text(encoding="utf-8"), rows)
    with atomic_write(PAGE) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run_as_script(main)
