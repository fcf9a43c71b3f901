"""A report as one HTML page that needs nothing else: no network, no script, no other file."""

from __future__ import annotations

import datetime
import importlib.resources
import itertools
import unicodedata
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any
from urllib.parse import quote

import jinja2
import markupsafe
from tokenizers import Tokenizer

from beam_pipelines.report.charts import Chart
from beam_pipelines.report.data import LEAST_SECONDS, TRAIN, DatasetReport, OutputReport
from beam_pipelines.report.looks import LOOKS
from transforms.dataset.manifest import SourceEntry
from transforms.files import storage
from transforms.files.hub_path import HubPath
from transforms.quantities import format_share, format_short, format_size
from transforms.sampling.split_sample import Excerpt
from transforms.sampling.token_pieces import token_pieces
from transforms.texts import FILTERED

_TEMPLATE = "report.html.jinja"
_MOST_FILES = 40
# Numbers below are written out where there is little room.
_BRIEF = 10_000_000
# A pause of so much of the time between the first file and the last is worth a sentence.
_LONG_PAUSE = 0.25

# Text may have these besides printable characters: joiners and non-joiners of their neighbours, and the soft hyphen.
_HARMLESS = frozenset("\n\t\u200c\u200d\u00ad")
_REASONS = {
    "null": "no value (null)",
    "empty": "empty text",
    "not_text": "not valid UTF-8",
    "too_long": "more than 16 MiB in one piece",
    FILTERED: "filtered",
}


def render_report(report: OutputReport, drawn: Iterable[Chart]) -> str:
    """The page, with the charts that were drawn for the report (`charts`). Equal reports give equal pages.

    Text from the datasets is escaped, and its control characters and those that turn the direction of text
    are shown by their code points. The page's own policy forbids scripts and every connection.
    """
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # All text, so that none is forgotten.
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    environment.filters |= {
        "count": lambda number: f"{number:,}",
        "short": format_short,
        "brief": lambda number: f"{number:,}" if number < _BRIEF else format_short(number),
        "size": format_size,
        "percent": format_share,
        "visible": visible,
        "breakable": lambda name: markupsafe.escape(visible(name)).replace("_", markupsafe.Markup("_<wbr>")),
    }
    template = environment.from_string(
        importlib.resources.files(__package__).joinpath(_TEMPLATE).read_text(encoding="utf-8")
    )
    mixed = report.mixed.get(report.batch)
    return template.render(
        report=report,
        title=" + ".join(dict.fromkeys(dataset.manifest.mix for dataset in report.datasets)),
        charts={chart.name: (chart.description, _drawings(chart)) for chart in drawn},
        datasets=[_dataset(report, dataset) for dataset in report.datasets],
        budget=report.total(lambda split: split.budget),
        tokens=report.total(lambda split: split.tokens),
        missing=report.total(lambda split: split.missing),
        repeated=[dataset for dataset in report.datasets if dataset.train.passes is not None],
        train=report.total(lambda split: split.tokens, TRAIN),
        documents=report.total(lambda split: split.documents),
        records=report.total(lambda split: split.records),
        special=report.total(lambda split: split.documents_with_special_strings or 0),
        shards=report.total(lambda split: len(split.shards)),
        bytes=report.total(lambda split: split.bytes),
        mixed=mixed,
        sequences=mixed.sequences_for(_trained_tokens(report)) if mixed and mixed.sequences else None,
        skipped=_skipped(report),
        throughput=_throughput(report),
        tokenizers=_tokenizers(report),
        versions=sorted({pair for dataset in report.datasets for pair in dataset.manifest.versions.items()}),
        is_local=storage.is_local(report.output),
        sampled=not all(dataset.sample.whole for dataset in report.datasets),
        framed=_framed(report),
        obstacles=_obstacles(report),
        inexact=[dataset.name for dataset in report.datasets if not dataset.sample.exact],
        most_files=_MOST_FILES,
    )


def visible(text: str) -> str:
    """Text whose invisible characters are named, so that none of them does anything to a page.

    >>> visible("a\\u202eb\\x00\\tö")
    'a⟨U+202E⟩b⟨U+0000⟩\\tö'
    """
    return "".join(
        character
        if character.isprintable() or character in _HARMLESS or unicodedata.category(character) == "Zs"
        else f"⟨U+{ord(character):04X}⟩"
        for character in text
    )


def _framed(report: OutputReport) -> str:
    """Which ids the records have beside those of the text."""
    tokenizers = [one.manifest.tokenizer for one in report.datasets]
    added = [
        name
        for name, ids in (("BOS", [one.bos_id for one in tokenizers]), ("EOS", [one.eos_id for one in tokenizers]))
        if any(token is not None for token in ids)
    ]
    return " and ".join(added)


def _drawings(chart: Chart) -> dict[str, markupsafe.Markup]:
    """A chart by the width of the page."""
    return {width: markupsafe.Markup(chart.svg(look)) for width, look in LOOKS.items()}


def _trained_tokens(report: OutputReport) -> int:
    return round(sum(one.train.tokens * (1 - one.trimmed) for one in report.datasets))


def _dataset(report: OutputReport, dataset: DatasetReport) -> dict[str, Any]:
    tokenizer = report.tokenizers.get(dataset.manifest.tokenizer.sha256)
    quantile = dataset.sample.documents.quantile
    return {
        "report": dataset,
        "name": dataset.name,
        "splits": dataset.manifest.splits,
        "share": report.share(dataset, lambda split: split.to_read),
        "wanted_share": report.share(dataset, lambda split: split.budget),
        "mean": dataset.train.tokens / dataset.train.documents if dataset.train.documents else None,
        "median": quantile(Fraction(1, 2)),
        "p99": quantile(Fraction(99, 100)),
        "longest": int(dataset.sample.documents.lengths[-1]) if dataset.sample.documents.documents else None,
        "sources": _sources(dataset.manifest.source),
        "excerpts": [] if tokenizer is None else [_excerpt(tokenizer, excerpt) for excerpt in dataset.sample.excerpts],
    }


def _sources(entries: Sequence[SourceEntry]) -> list[dict[str, Any]]:
    """Files by where they come from: a revision of a repository of the hub, or a folder."""
    rows = []
    for (where, revision), group in itertools.groupby(entries, key=lambda entry: _origin(entry)[:2]):
        members = list(group)
        hub = HubPath.find(members[0].path)
        rows.append(
            {
                "where": where,
                "revision": revision,
                "url": hub
                and f"https://huggingface.co/datasets/{hub.repository}/tree/{quote(hub.revision or 'main', safe='')}",
                "count": len(members),
                "bytes": sum(entry.size for entry in members),
                "row_groups": sum(len(entry.row_groups) for entry in members),
                "files": [(_origin(entry)[2], entry) for entry in members[:_MOST_FILES]],
            }
        )
    return rows


def _origin(entry: SourceEntry) -> tuple[str, str, str]:
    """(repository or folder, revision, name there)."""
    if hub := HubPath.find(entry.path):
        return hub.repository, hub.revision, hub.path
    folder, _, name = entry.path.rpartition("/")
    return folder or ".", "", name


def _excerpt(tokenizer: Tokenizer, excerpt: Excerpt) -> dict[str, Any]:
    special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    return {
        "excerpt": excerpt,
        "is_cut": excerpt.tokens > len(excerpt.ids),
        "pieces": [
            (visible(text), "special" if special.issuperset(ids) else "odd" if number % 2 else "even")
            for number, (text, ids) in enumerate(token_pieces(tokenizer, excerpt.ids))
        ],
    }


def _obstacles(report: OutputReport) -> dict[str, list[str]]:
    """Which datasets are not packed, by the reason."""
    found: dict[str, list[str]] = {}
    for one in report.datasets:
        if one.obstacle:
            found.setdefault(one.obstacle, []).append(one.name)
    return found


def _skipped(report: OutputReport) -> dict[str, Any]:
    """Rows that were left out: the reasons that occur, and for each dataset with some how many by reason."""
    manifests = [one.manifest for one in report.datasets]
    left_out = {
        manifest.dataset: {**manifest.skipped, **({FILTERED: manifest.filtered} if manifest.filtered else {})}
        for manifest in manifests
    }
    reasons = sorted({reason for by_reason in left_out.values() for reason, rows in by_reason.items() if rows})
    return {
        "reasons": [_REASONS.get(reason, reason.replace("_", " ")) for reason in reasons],
        "rows": [
            (dataset, [by_reason.get(reason, 0) for reason in reasons], sum(by_reason.values()))
            for dataset, by_reason in left_out.items()
            if any(by_reason.values())
        ],
        "quarantined": [
            (manifest.dataset, entry.file, sum(entry.rows.values()))
            for manifest in manifests
            for entry in manifest.quarantine
        ],
    }


def _throughput(report: OutputReport) -> dict[str, Any] | None:
    written = report.written
    if not written:
        return None
    first, last = written[0].seconds, written[-1].seconds
    pause = max((after.seconds - before.seconds for before, after in itertools.pairwise(written)), default=0.0)
    after_first = sum(file.tokens for file in written[1:])
    return {
        "first": _moment(first),
        "last": _moment(last),
        "span": _duration(last - first),
        "files": len(written),
        "rate": after_first / (last - first) if last - first >= LEAST_SECONDS else None,
        "after_first": after_first,
        "pause": _duration(pause) if last - first >= LEAST_SECONDS and pause > _LONG_PAUSE * (last - first) else None,
    }


def _moment(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _duration(seconds: float) -> str:
    """About how long, in the two largest units.

    >>> [_duration(seconds) for seconds in (0.26, 75, 3 * 3600 + 60, 26 * 3600)]
    ['0.3 s', '1 min 15 s', '3 h 1 min', '1 d 2 h']
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole, parts = round(seconds), []
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        amount, whole = divmod(whole, unit)
        parts.append((amount, name))
    first = next(index for index, (amount, _) in enumerate(parts) if amount)
    return " ".join(f"{amount} {name}" for amount, name in parts[first : first + 2] if amount)


def _tokenizers(report: OutputReport) -> list[dict[str, Any]]:
    """Each tokenizer once, with the datasets that it made."""
    found: dict[str, dict[str, Any]] = {}
    for one in report.datasets:
        entry = found.setdefault(
            one.manifest.tokenizer.sha256, {"tokenizer": one.manifest.tokenizer, "datasets": [], "is_there": True}
        )
        entry["datasets"].append(one.name)
        entry["is_there"] = one.manifest.tokenizer.sha256 in report.tokenizers
    return list(found.values())
