"""Strict reading of `params.yaml`: one message reports every problem before any work starts.

The parameters of a stage are declared in the module `params` of its package. `cxr.params` combines them into the model
of the whole file. No stage imports it, so a change of one stage's parameters does not rerun earlier stages.
"""

import os
import reprlib
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML, tokens
from ruamel.yaml.constructor import ConstructorError, SafeConstructor

from cxr.core.errors import InputError
from cxr.core.files import read_utf8

PARAMS_FILE = Path("params.yaml")
# The project's dvc.yaml, which lists the parameters of every stage.
PIPELINE_FILE = Path(__file__).resolve().parents[2] / "dvc.yaml"
MAX_DEPTH = 20
_STARTS = (
    tokens.BlockMappingStartToken,
    tokens.BlockSequenceStartToken,
    tokens.FlowMappingStartToken,
    tokens.FlowSequenceStartToken,
)
_ENDS = (tokens.BlockEndToken, tokens.FlowMappingEndToken, tokens.FlowSequenceEndToken)


class Strict(BaseModel):
    """Base of parameter models: frozen; unknown keys, missing keys and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _check_distinct(values: list[Any]) -> list[Any]:
    repeated = sorted({value for value in values if values.count(value) > 1})
    if repeated:
        raise ValueError(f"values must be distinct; repeated: {', '.join(map(str, repeated))}")
    return values


def _check_path(path: Path) -> Path:
    """Check that the operating system accepts the characters of a path; raise ValueError if not."""
    if b"\0" in os.fsencode(path):
        raise ValueError("a path cannot contain NUL")
    return path


Distinct = AfterValidator(_check_distinct)
Probability = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
ImageSize = Annotated[int, Field(ge=32, le=1024)]
FolderPath = Annotated[Path, Field(strict=False), AfterValidator(_check_path)]
RawDir = Annotated[FolderPath, Field(description="folder with the images and tables, in the layout of NIH or CheXpert")]

Section = TypeVar("Section", bound=Strict)


def read_params(section: type[Section], path: Path = PARAMS_FILE) -> Section:
    """Read `path` and return the parameters that `section` declares.

    All top-level names are checked against dvc.yaml; values are checked for `section` only.

    Args:
        section: the parameter model of a stage, or `cxr.params.Params` for the whole file.
        path: the file to read.

    Raises:
        InputError: if the file is missing or invalid; the message lists every problem.
    """
    values = _load_yaml(path)
    if not isinstance(values, dict):
        raise InputError(f"{path} is invalid: it must map parameter names to values")
    problems = _name_problems(values, section)
    own = {name: value for name, value in values.items() if name in section.model_fields}
    try:
        params = section.model_validate(own)
    except ValidationError as error:
        problems += [_format_problem(problem, section) for problem in error.errors()]
    if problems:
        raise InputError(f"{path} is invalid:\n" + "\n".join(f"  {problem}" for problem in problems))
    return params


@cache
def pipeline_params() -> dict[str, tuple[str, ...]]:
    """Return the names of the top-level parameters of each stage, as listed in dvc.yaml."""
    stages = _load_yaml(PIPELINE_FILE)["stages"]
    return {stage: tuple(definition.get("params", ())) for stage, definition in stages.items()}


def _name_problems(values: dict[Any, Any], section: type[Strict]) -> list[str]:
    """Return a message for each unknown or missing top-level name; pydantic reports names missing from `section`."""
    names = dict.fromkeys(name for stage in pipeline_params().values() for name in stage)
    candidates = [*names, *_dotted_names(section)]
    unknown = [_unknown_parameter(str(name), candidates) for name in values if name not in names]
    missing = [f"{name}: missing" for name in names if name not in values and name not in section.model_fields]
    return unknown + missing


def _unknown_parameter(name: str, candidates: list[str]) -> str:
    close = get_close_matches(name, candidates, n=1)
    return f"{name}: unknown parameter" + (f"; did you mean {close[0]}?" if close else "")


def _format_problem(problem: Any, section: type[Strict]) -> str:
    name = ".".join(map(str, problem["loc"])) or "the file"
    if problem["type"] == "extra_forbidden":
        return _unknown_parameter(name, _dotted_names(section))
    if problem["type"] == "missing":
        return f"{name}: missing"
    message, value = problem["msg"].removeprefix("Value error, "), problem["input"]
    return f"{name}: {message}" + ("" if isinstance(value, dict) else f" (got {_shorten(value)})")


def _dotted_names(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Return the names of all fields of `model`, those of nested models with dots: `loss.focal_gamma`."""
    names = []
    for name, field in model.model_fields.items():
        names.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names += _dotted_names(field.annotation, f"{prefix}{name}.")
    return names


def _shorten(value: object) -> str:
    """Return the representation of a value, cut to 100 characters; its nested values are left out."""
    try:
        text = reprlib.repr(value)
    except ValueError:  # Python refuses to convert an integer of more than 4,300 digits
        return "an integer of thousands of digits"
    return text if len(text) <= 100 else f"{text[:97]}..."


def _load_yaml(path: Path) -> Any:
    """Parse a YAML 1.2 file as DVC does: `1e-05` is a number, `off` is a string, and a duplicate key is an error.

    Raises:
        InputError: if the file is missing, is not YAML, or has aliases or deeply nested values.
    """
    try:
        text = read_utf8(path)
    except FileNotFoundError:
        raise InputError(f"{path} not found; run from the top folder of the repository") from None
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Constructor
    try:
        _check_tokens(text)
        return yaml.load(text)
    except Exception as error:  # noqa: BLE001 (ruamel.yaml raises many types for broken files)
        raise InputError(f"{path} is not valid YAML: {error}") from None


class _Constructor(SafeConstructor):
    """Constructs values; the error for one that cannot be constructed, such as 2020-99-99, names its line."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
            raise ConstructorError(None, None, str(error), node.start_mark) from None


def _check_tokens(text: str) -> None:
    """Check that a YAML text has no aliases and is nested at most `MAX_DEPTH` deep.

    A few lines with aliases of aliases stand for billions of values, and parsing nested brackets takes time that grows
    with the square of their number.

    Raises:
        ValueError: naming the line.
    """
    depth = 0
    for token in YAML(pure=True).scan(text):
        line = token.start_mark.line + 1
        if isinstance(token, tokens.AliasToken):
            raise ValueError(f"line {line} has an alias, *{token.value}; write the value instead")
        depth += isinstance(token, _STARTS) - isinstance(token, _ENDS)
        if depth > MAX_DEPTH:
            raise ValueError(f"the values in line {line} are nested too deeply")
