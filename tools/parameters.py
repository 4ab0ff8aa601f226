"""Print the table of parameters that README.md holds, from the typed model and `params.yaml`.

python -m tools.parameters           print it
python -m tools.parameters --write   put it into README.md, between its two marks
"""

import argparse
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cxr import params
from cxr.errors import InputError, run_as_script
from cxr.files import replacing
from cxr.params import Params, read_params

README = Path("README.md")
MARKS = ("<!-- parameters -->\n", "<!-- end of parameters -->\n")
STAGES = ("sample", "split", "resize", "train", "evaluate")


def table(values: Params) -> str:
    """A row of Markdown for each parameter, in the order of the stages: name, value in `values`, readers, meaning."""
    names = dict.fromkeys(name for stage in STAGES for name in _section(stage).model_fields)
    rows = [row for name in names for row in _rows(name, Params.model_fields[name], getattr(values, name))]
    return "\n".join(["| parameter | in the demo | read by | what it is |", "| --- | --- | --- | --- |", *rows]) + "\n"


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
    return [stage for stage in STAGES if section in _section(stage).model_fields]


def _section(stage: str) -> type[BaseModel]:
    section: type[BaseModel] = getattr(params, f"{stage.capitalize()}Params")
    return section


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
        raise InputError(f"{README} has no line {MARKS[0].strip()} with {MARKS[1].strip()} after it")
    return before + first + rows + last + after


def main() -> None:
    """Print the table, or write it."""
    parser = argparse.ArgumentParser(
        "python -m tools.parameters", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="put it into README.md")
    rows = table(read_params(Params))
    if not parser.parse_args().write:
        print(rows, end="")
        return
    text = with_table(README.read_text(encoding="utf-8"), rows)
    with replacing(README) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run_as_script(main)
