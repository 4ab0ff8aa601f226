"""Reading `params.yaml`: the strict base of every parameter model, and one message that names every problem.

Each package holds the parameters of its own stage in a module `params`. `cxr.params` puts them together into the model
of the whole file; no stage imports it, so that a change of one stage's parameters reruns that stage and no earlier one.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML, YAMLError

from cxr.core.errors import InputError

PARAMS_FILE = Path("params.yaml")
# The project's own dvc.yaml: it lists the parameters of every stage.
PIPELINE_FILE = Path(__file__).resolve().parents[2] / "dvc.yaml"


class Strict(BaseModel):
    """A group of parameters: unknown keys, missing keys and values of another type are errors; instances are frozen."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _check_distinct(values: list[Any]) -> list[Any]:
    repeated = sorted({value for value in values if values.count(value) > 1})
    if repeated:
        raise ValueError(f"values must be distinct; repeated: {', '.join(map(str, repeated))}")
    return values


Distinct = AfterValidator(_check_distinct)
Probability = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
RawDir = Annotated[
    Path, Field(strict=False, description="folder with the images and tables, in the layout of NIH or CheXpert")
]

Section = TypeVar("Section", bound=Strict)


def read_params(section: type[Section], path: Path = PARAMS_FILE) -> Section:
    """Read `path`, check it, and return the parameters that `section` declares.

    The top-level keys of the whole file are checked against dvc.yaml; values are checked for `section` only.

    Args:
        section: the parameters of a stage, or `cxr.params.Params` for the whole file.
        path: the file to read.

    Raises:
        InputError: naming every problem found.
    """
    values = _load_yaml(path)
    if not isinstance(values, dict):
        raise InputError(f"{path} cannot be used: it must map parameter names to values")
    problems = _name_problems(values, section)
    own = {name: value for name, value in values.items() if name in section.model_fields}
    try:
        found = section.model_validate(own)
    except ValidationError as error:
        problems += [_explain(problem, section) for problem in error.errors()]
    if problems:
        raise InputError(f"{path} cannot be used:\n" + "\n".join(f"  {problem}" for problem in problems))
    return found


@cache
def pipeline_params() -> dict[str, tuple[str, ...]]:
    """The top-level parameters of each stage, by the name of the stage, as dvc.yaml lists them."""
    stages = _load_yaml(PIPELINE_FILE)["stages"]
    return {stage: tuple(definition.get("params", ())) for stage, definition in stages.items()}


def _name_problems(values: dict[Any, Any], section: type[Strict]) -> list[str]:
    names = dict.fromkeys(name for stage in pipeline_params().values() for name in stage)
    candidates = [*names, *_dotted_names(section)]
    unknown = [_unknown_parameter(str(name), candidates) for name in values if name not in names]
    missing = [f"{name}: missing" for name in names if name not in values and name not in section.model_fields]
    return unknown + missing


def _unknown_parameter(name: str, candidates: Iterable[str]) -> str:
    close = get_close_matches(name, list(candidates), n=1)
    return f"{name}: no such parameter" + (f"; did you mean {close[0]}?" if close else "")


def _explain(problem: Any, section: type[Strict]) -> str:
    name = ".".join(map(str, problem["loc"])) or "the file"
    if problem["type"] == "extra_forbidden":
        return _unknown_parameter(name, _dotted_names(section))
    if problem["type"] == "missing":
        return f"{name}: missing"
    message, value = problem["msg"].removeprefix("Value error, "), problem["input"]
    return f"{name}: {message}" + ("" if isinstance(value, dict) else f" (got {value!r})")


def _dotted_names(model: type[BaseModel], prefix: str = "") -> list[str]:
    names = []
    for name, field in model.model_fields.items():
        names.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names += _dotted_names(field.annotation, f"{prefix}{name}.")
    return names


def _load_yaml(path: Path) -> Any:
    """Parse a file as YAML 1.2, as DVC does: `1e-05` is a number, `off` is a string, and a repeated key is an error."""
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"there is no {path} here; run from the top folder of the repository") from None
    except (YAMLError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{path} is not valid YAML: {error}") from None
