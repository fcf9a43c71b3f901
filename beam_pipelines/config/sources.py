"""Where a dataset of a mix has its files: paths, globs and datasets of the hub, as a config may write them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, WithJsonSchema

from transforms.config.document import Problem
from transforms.config.section import UNSHOWN, Section, Text, mended, one_or_several
from transforms.errors import UsageError
from transforms.files.hub_path import REPOSITORY, HubPath
from transforms.quantities import shown


def _to_sources(value: Any) -> tuple[Any, ...]:
    return one_or_several(value, Mapping, HubDataset)


def _kind_of_source(value: Any) -> str:
    return f"{UNSHOWN}{'dataset' if isinstance(value, Mapping | HubDataset) else 'path'}"


def _check_source(value: str) -> str:
    if not value.strip() or value != value.strip():
        raise UsageError(f"{shown(value)} is empty or has spaces around it; write a path, such as german/*.parquet")
    if value.startswith("hf://"):
        _check_hub_source(value)
    elif value.lower().startswith(("http://", "https://")):
        raise UsageError(
            f"{shown(value)} is a web address, which Beam cannot read; write hf://datasets/OWNER/NAME@REVISION/path "
            "for files of the Hugging Face hub, or copy them to a disk or bucket"
        )
    return value


def _check_hub_source(value: str) -> None:
    source = HubPath.find(value)
    if source is None or not source.path:
        raise UsageError(
            f"{shown(value)} is not a file of a hub dataset; write hf://datasets/OWNER/NAME@REVISION/path/*.parquet"
        )


def unpinned(sources: Any) -> Iterator[Problem]:
    """The problems of hub sources that could change between two builds; `sources` may be of a wrong type."""
    for number, source in enumerate(sources if isinstance(sources, list | tuple) else [sources]):
        path = _named_on_hub(source)
        if path is not None and not path.pinned:
            how = "`revision: REVISION`" if path.path == "" else f"hf://datasets/{path.repository}@REVISION/{path.path}"
            yield Problem(
                ("source", number),
                f"{shown(source)} is not pinned to a full revision (40 hexadecimal digits), so it could change between "
                f"two builds; write {how} with the commit that "
                f"`git ls-remote https://huggingface.co/datasets/{path.repository} HEAD` prints, or allow_unpinned: "
                "true to take what is there now, and keep its commit in the manifest",
            )


def _named_on_hub(source: Any) -> HubPath | None:
    if isinstance(source, HubDataset):
        source = source.model_dump()
    if isinstance(source, Mapping):
        repository, revision = source.get("dataset"), source.get("revision") or ""
        if not isinstance(repository, str) or not isinstance(revision, str):
            return None
        return HubPath(repository, revision, "")
    return HubPath.find(source) if isinstance(source, str) else None


def _check_repository(value: str) -> str:
    if not REPOSITORY.fullmatch(value):
        raise UsageError(f"{shown(value)} is no repository of the hub; write OWNER/NAME")
    return value


class HubDataset(Section):
    """The files of one split of a dataset on the hub, as the `datasets` library finds them."""

    dataset: Annotated[str, AfterValidator(mended(_check_repository))] = Field(
        description="The dataset's repository on the hub: OWNER/NAME.", examples=["HuggingFaceFW/fineweb-2"]
    )
    config: Text | None = Field(
        default=None, description="The dataset's configuration, where it has several.", examples=["deu_Latn"]
    )
    split: Text = Field(default="train", description="The dataset's split.", examples=["train"])
    revision: Text | None = Field(
        default=None,
        description="The full commit, 40 hexadecimal digits; needed without `allow_unpinned`.",
        examples=["c292233c833e336628618a88a648727eb3dff0a7"],
    )


_ONE_SOURCE = {"anyOf": [{"type": "string"}, HubDataset.model_json_schema()]}

Source = Annotated[
    Annotated[Annotated[str, AfterValidator(mended(_check_source))], Tag(f"{UNSHOWN}path")]
    | Annotated[HubDataset, Tag(f"{UNSHOWN}dataset")],
    Discriminator(_kind_of_source),
]
Sources = Annotated[
    tuple[Source, ...],
    BeforeValidator(mended(_to_sources)),
    Field(min_length=1),
    WithJsonSchema({"anyOf": [*_ONE_SOURCE["anyOf"], {"type": "array", "items": _ONE_SOURCE, "minItems": 1}]}),
]
