"""The parts that config schemas are made of: sections whose every problem is reported, in words of the config.

A schema is a `transforms.config.file.ConfigFile` of `Section`s. The keys are not known here:
`beam_pipelines.config.mix` and `launch.config.training` say it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from transforms.config.document import Problem
from transforms.errors import UsageError
from transforms.quantities import shown

UNSHOWN = "\0"
"""The prefix of the tags of a union, which pydantic puts among the keys; in YAML no key can."""

_MAX_NAME = 100
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def mended[T](parse: Callable[[Any], T]) -> Callable[[Any], T]:
    """`parse` as a pydantic validator: its UsageError becomes an error of the field."""

    def validate(value: Any) -> T:
        try:
            return parse(value)
        except UsageError as error:
            raise PydanticCustomError("broetchen", "{what}", {"what": str(error)}) from error

    return validate


def check_name(value: str) -> str:
    """`value`, where it can name a folder on any filesystem.

    Raises:
        UsageError: it cannot.
    """
    if len(value) > _MAX_NAME:
        raise UsageError(f"{shown(value)} has {len(value)} characters; shorten it to {_MAX_NAME}, as it names a folder")
    if not _NAME.fullmatch(value) or ".." in value:
        raise UsageError(
            f"{shown(value)} cannot name a folder; use letters, digits, '.', '_' and '-', starting with a letter or "
            f"digit and without '..', such as {shown(_safe_name(value))}"
        )
    return value


def _safe_name(value: str) -> str:
    return re.sub(r"\.\.+", ".", re.sub(r"[^A-Za-z0-9._-]+", "-", value)).strip("._-")[:_MAX_NAME] or "my-name"


Name = Annotated[str, AfterValidator(mended(check_name))]
"""A name that becomes a folder's."""

Text = Annotated[str, Field(min_length=1)]
"""Text that says something."""


def one_or_several(value: Any, *kinds: type) -> tuple[Any, ...]:
    """A path, or another thing of the `kinds`, that may be written alone, as a list of one; and lists as they are.

    Raises:
        UsageError: it is neither.
    """
    several = (value,) if isinstance(value, (str, *kinds)) else value
    if not isinstance(several, list | tuple):
        raise UsageError(f"{shown(value)} is neither a path nor a list of paths; write one, or several as [a, b]")
    return tuple(several)


class Section(BaseModel):
    """A mapping of the config. Every problem in it is reported, those between its keys too, in words of the config."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    @classmethod
    def _cross_checks(cls, given: Mapping[str, Any]) -> Iterator[Problem]:
        """The problems between keys. `given` is as written, without nulls: any value may be of a wrong type."""
        return iter(())

    @model_validator(mode="wrap")
    @classmethod
    def _report_all(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        # A plain "after" validator runs only once every field is right; the user would mend a file error by error.
        problems: list[Problem] = []
        if isinstance(data, Mapping):
            problems += cls._cross_checks({key: value for key, value in data.items() if value is not None})
        try:
            section = handler(data)
        except ValidationError as error:
            problems += (Problem(_shown_place(details["loc"]), cls._sentence(details)) for details in error.errors())
        if problems:
            raise ValidationError.from_exception_data(cls.__name__, [_line_error(problem) for problem in problems])
        return section

    @classmethod
    def _sentence(cls, error: ErrorDetails) -> str:
        """Pydantic's finding, as a sentence with the value and the fix."""
        context, value = error.get("ctx", {}), shown(error["input"])
        match error["type"]:
            case "broetchen":
                return str(context["what"])
            case "missing":
                key = str(error["loc"][-1])
                example, *_ = cls.model_fields[key].examples or ["…"]
                return f"is missing; add `{key}: {example}`"
            case "extra_forbidden":
                return unknown_key(str(error["loc"][-1]), cls.model_fields)
            case "string_type":
                return f"{value} is not text; put it in quotes"
            case "string_too_short":
                return f"{value} is empty; write a text or leave the key out"
            case "bool_type":
                return f"{value} is neither true nor false; write one of them, without quotes"
            case "int_type":
                return f"{value} is not a whole number; write digits, without quotes or decimals"
            case "greater_than_equal":
                return f"{value} is too small; write at least {context['ge']}"
            case "less_than_equal":
                return f"{value} is too large; write at most {context['le']}"
            case "literal_error":
                return f"{value} is not one of {context['expected']}; write one of them"
            case "too_short":
                return f"{value} is empty; add at least one {str(error['loc'][-1]).removesuffix('s')}"
            case "model_type" | "dict_type":
                return f"{value} is not a mapping; write `key: value` pairs, indented below it"
            case _:
                return f"{value} is not valid: {error['msg']}; write another value"


def _shown_place(place: tuple[int | str, ...]) -> tuple[int | str, ...]:
    return tuple(part for part in place if not str(part).startswith(UNSHOWN))


def _line_error(problem: Problem) -> InitErrorDetails:
    kind = PydanticCustomError("broetchen", "{what}", {"what": problem.what})
    return InitErrorDetails(type=kind, loc=problem.loc, input=None)


def unknown_key(key: str, known: Mapping[str, Any]) -> str:
    """A hint for a key that is not among the `known`: the one that may have been meant."""
    near = difflib.get_close_matches(key, known, n=1)
    advice = f"did you mean `{near[0]}`?" if near else "remove it"
    return f"is not a key that exists here; {advice} (keys: {', '.join(known)})"
