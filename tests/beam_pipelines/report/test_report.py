"""The report of a built output: right in its numbers, whole in itself, and unmoved by the text of documents."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import html.parser
import http.server
import json
import os
import re
import shutil
import subprocess
import threading
import urllib.parse
from collections import Counter
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grain.python as grain
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import image
from maxtext.input_pipeline.data_processing_utils import format_and_batch
from tokenizers import Tokenizer

from beam_pipelines.config.mix import load_config
from beam_pipelines.jobs.build import build
from beam_pipelines.report.charts import charts
from beam_pipelines.report.data import OutputReport, read_report
from beam_pipelines.report.looks import LOOKS
from beam_pipelines.report.page import render_report, visible
from beam_pipelines.report.write import write_report
from tests.support.command import run_command, without_hint
from tests.support.corpora import EOS, TOKENIZER, documents_of, reference_ids, write_parquet
from tests.support.reading import read_ids
from transforms.dataset.manifest import find_manifests
from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.files.listing import list_files
from transforms.sampling.packing import pack_first_fit
from transforms.sampling.split_sample import sample_split
from transforms.sampling.token_pieces import token_pieces

MAX_TOKENS = 64
HOSTILE = [
    "<script>document.title = 'taken'</script> and </div></section></main></body></html> more",
    '"><img src=x onerror=alert(1)> <iframe src="//example.org"></iframe> <style>* { display: none }</style>',
    "{{ 7 * 7 }} {% raw %} {{ report }} ${jndi:ldap://x} &amp; &#60;b&#62; <!-- never closed",
    "turned \u202e right to left \u2066 and not back, a bell \x07, an escape \x1b[2J, nothing \x00, a \ufeff mark",
    "السلام عليكم ورحمة الله, שלום, 你好世界, 👩‍👩‍👧‍👦 and 𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
    "x" * 3000,
    "<|eos|> as text, and <|bos|> too",
    "zalgo " + "a\u0301\u0302\u0303\u0304" * 50,
]
FOLDER = "a & b <i>"


def mix_of(folder: Path, **settings: Any) -> Path:
    """A config of two datasets, one of them with hostile documents, rows without text and a name that is markup."""
    plain = [[f"Satz {group}, {row}" + " und noch einer mehr" * (row % 7) for row in range(30)] for group in range(8)]
    hostile = [[text, None, "", f"Nummer {number} dazwischen."] for number, text in enumerate(HOSTILE * 6)]
    write_parquet(folder / "plain" / "0.parquet", plain[:4])
    write_parquet(folder / "plain" / "1.parquet", plain[4:])
    write_parquet(folder / FOLDER / "0.parquet", hostile)
    content = {
        "name": "reported",
        "tokenizer": {"path": str(TOKENIZER), "eos_token": "<|eos|>"},
        "records": {"format": "tokens", "max_tokens": MAX_TOKENS, "add_eos": True},
        "shards": {"target_size": 1500},
        "datasets": {
            "plain": {"source": "plain/*.parquet", "tokens": 2000, "eval_tokens": 100},
            "hostile_texts": {"source": f"{FOLDER}/*.parquet", "tokens": 3000, "eval_tokens": 100},
        },
        **settings,
    }
    path = folder / "mix.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def built(folder: Path, **settings: Any) -> Path:
    build(load_config(str(mix_of(folder, **settings))), str(folder / "out"), quiet=True)
    return folder / "out"


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("tokens"))


@pytest.fixture(scope="module")
def report(output: Path) -> OutputReport:
    return read_report(str(output))


@pytest.fixture(scope="module")
def page(report: OutputReport) -> str:
    return render_report(report, charts(report))


# Numbers


def documents_by_reference(output: Path, dataset: str, folder: str, split: str) -> list[int]:
    """The tokens of the documents of a split, by the plain loop: the split's part of the stream, cut at documents."""
    lengths = [len(ids) for ids in reference_ids(documents_of((output.parent / folder).glob("*.parquet")))]
    ends = np.cumsum(lengths)
    first, last = (0, 2000 if dataset == "plain" else 3000)
    if split == "eval":
        first, last = last, last + 100
    found = [min(int(end), last) - max(int(end) - size, first) for end, size in zip(ends, lengths, strict=True)]
    return [size for size in found if size > 0]


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "eval"])
@pytest.mark.parametrize(("dataset", "folder"), [("plain", "plain"), ("hostile_texts", FOLDER)])
def test_a_split_that_is_read_whole_has_the_documents_of_the_source(
    output: Path, dataset: str, folder: str, split: str
) -> None:
    manifest = find_manifests(str(output / dataset))[str(output / dataset)]
    sample = sample_split(str(output / dataset), manifest, split)
    assert (sample.whole, sample.exact) == (True, True)
    assert sample.records.tolist() == [len(record) for record in read_ids(output / dataset, split)]
    found = Counter(dict(zip(sample.documents.lengths.tolist(), sample.documents.counts.tolist(), strict=True)))
    assert found == Counter(documents_by_reference(output, dataset, folder, split))
    assert sample.documents.documents == manifest.splits[split].documents


@pytest.mark.parametrize("most", [1, 9, 40])
def test_documents_of_a_sample_are_documents_of_the_source(output: Path, most: int) -> None:
    folder = str(output / "hostile_texts")
    manifest = find_manifests(folder)[folder]
    sample = sample_split(folder, manifest, "train", most_records=most)
    assert not sample.whole
    assert len(sample.records) <= most
    real = Counter(documents_by_reference(output, "hostile_texts", FOLDER, "train"))
    for length, count in zip(sample.documents.lengths.tolist(), sample.documents.counts.tolist(), strict=True):
        assert count <= real[length]


def test_a_sample_bounded_by_tokens(output: Path) -> None:
    folder = str(output / "hostile_texts")
    sample = sample_split(folder, find_manifests(folder)[folder], "train", most_tokens=500)
    assert 100 < sample.records.sum() < 1500


def test_a_shard_with_other_records_is_an_error(output: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(output, tmp_path / "out"))
    first, second = sorted((copy / "plain").glob("train-*.arecord"))[:2]
    manifest = json.loads((copy / "plain" / "manifest.json").read_bytes())
    manifest["splits"]["train"]["shards"][0]["records"] += 1
    (copy / "plain" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BroetchenError, match=rf"{first.name}: holds [\d,]+ records, and its manifest says"):
        read_report(str(copy))
    second.unlink()
    with pytest.raises(BroetchenError, match=r"-of-0|: holds"):
        read_report(str(copy))


def test_a_dataset_without_a_train_split_is_none_to_report_on(output: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(output / "plain", tmp_path / "plain"))
    manifest = json.loads((copy / "manifest.json").read_bytes())
    del manifest["splits"]["train"]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BroetchenError, match="plain: its manifest has no train split"):
        read_report(str(copy))


def test_what_a_manifest_says_is_text(output: Path, tmp_path: Path) -> None:
    """Neither markup nor control characters, wherever the page shows it."""
    copy = Path(shutil.copytree(output / "plain", tmp_path / "plain"))
    manifest = json.loads((copy / "manifest.json").read_bytes())
    nasty = '<img src="x" onerror="alert(1)">\x1b[2J\u202e{{ 7 * 7 }}'
    manifest["source"][0]["path"] = f"hf://datasets/a/b@{nasty.replace('/', '')}/{nasty}"
    manifest["versions"]["library"] = nasty
    manifest["tokenizer"]["path"] = f"../{nasty}"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    found = read_report(str(copy))
    shown = render_report(found, charts(found))
    assert "<img" not in shown
    assert {"\x1b", "\u202e"}.isdisjoint(shown)
    assert "⟨U+001B⟩[2J⟨U+202E⟩{{ 7 * 7 }}" in shown


# Packing


def test_packing_is_maxtexts(report: OutputReport) -> None:
    """MaxText's own step packs the records of the sample into as many sequences."""
    (plain,) = [one for one in report.datasets if one.name == "plain"]
    config = SimpleNamespace(
        packing=True,
        max_target_length=MAX_TOKENS,
        max_segments_per_seq=-1,
        grain_packing_type="first_fit",
        grain_use_elastic_iterator=False,
    )
    columns = ("inputs", "targets")
    records = (
        grain.MapDataset.source(plain.sample.records.tolist())
        .shuffle(seed=0)
        .to_iter_dataset()
        .map(lambda tokens: dict.fromkeys(columns, np.full(tokens, 7, np.int32)))
    )
    batches = list(format_and_batch(records, config, 4, 0, columns, None, shift=False))
    rows = [row for batch in batches for row in batch["inputs_segmentation"] if row.any()]
    packing = pack_first_fit(plain.sample.records.tolist(), MAX_TOKENS, 4)
    assert packing.sequences == len(rows)
    assert packing.tokens == sum(int((row > 0).sum()) for row in rows) == 2000


def test_sequences_that_memory_does_not_hold(output: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(output, tmp_path / "out"))
    for path in copy.glob("*/manifest.json"):
        manifest = json.loads(path.read_text())
        manifest["config"]["records"]["max_tokens"] = 2**31 - 1
        path.write_text(json.dumps(manifest))
    report = read_report(str(copy))
    assert {one.obstacle for one in report.datasets} == {
        "Sequences of 2,147,483,647 are too long to pack 128 at a time here; name shorter ones by --length"
    }
    assert "name shorter ones by --length" in render_report(report, ())


def test_sequences_that_are_too_short_for_the_records(output: Path) -> None:
    report = read_report(str(output), length=MAX_TOKENS - 1)
    assert not report.mixed
    text = Page.of(render_report(report, ())).text
    assert "Not packed: hostile_texts, plain." in text
    assert "Records of up to 64 ids do not fit into sequences of 63, at which MaxText would stop." in text


# The page


class Page(html.parser.HTMLParser):
    """A page as a browser reads it: elements with their attributes, and the text; open elements must be closed."""

    VOID = frozenset({"meta", "img", "source", "wbr", "br"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.style = ""
        self._open: list[str] = []
        self._text: list[str] = []

    @classmethod
    def of(cls, content: str) -> Page:
        parsed = cls()
        parsed.feed(content)
        parsed.close()
        assert not parsed._open, f"not closed: {parsed._open}"
        return parsed

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)
        if tag in ("td", "th"):
            self._text.append(" ")

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "style":
            self.style += data
        else:
            self._text.append(data)

    @property
    def raw_text(self) -> str:
        return "".join(self._text)

    @property
    def text(self) -> str:
        return " ".join(self.raw_text.split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_the_page_is_whole_in_itself(page: str) -> None:
    parsed = Page.of(page)
    assert not {"script", "link", "iframe", "object", "embed", "form", "base", "img", "foreignobject"} & {
        tag for tag, _ in parsed.elements
    }
    assert not re.search(r"url\(|@import|expression", parsed.style)
    for _, attributes in parsed.elements:
        assert not [name for name in attributes if name.startswith("on")]
        assert not {"src", "srcset"} & attributes.keys()
        assert re.match(r"#|https://huggingface\.co/datasets/", attributes.get("href") or "#")
    (policy,) = [one for one in parsed.all("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    assert (policy["content"] or "").startswith("default-src 'none'; style-src 'unsafe-inline';")


def test_the_page_can_be_read_by_all(page: str) -> None:
    parsed = Page.of(page)
    assert parsed.all("html") == [{"lang": "en"}]
    assert len(parsed.all("h1")) == 1
    images = [one for one in parsed.all("div") if one.get("role") == "img"]
    assert len(images) == 3 * len(LOOKS)  # of a build of a moment, no throughput
    assert all(len(one["aria-label"] or "") > 40 for one in images)
    assert all(one.get("scope") in ("col", "row") for one in parsed.all("th"))
    assert len([tag for tag, _ in parsed.elements if tag == "thead"]) == len(parsed.all("table"))
    scrolled = [one for one in parsed.all("div") if one.get("class") in ("scroll", "document")]
    assert all(one["tabindex"] == "0" and one["aria-label"] for one in scrolled)
    identifiers = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(set(identifiers)) == len(identifiers)
    assert {(one["href"] or "")[1:] for one in parsed.all("a") if (one["href"] or "").startswith("#")} <= set(
        identifiers
    )


def test_the_page_says_what_the_manifests_say(report: OutputReport, page: str) -> None:
    text = Page.of(page).text
    assert text.startswith("reported – 5,200 tokens reported 2 datasets, 5,200 tokens. ✓ exact: every split")
    for one in report.datasets:
        for name, split in one.manifest.splits.items():
            numbers = (split.budget, split.tokens, "none", split.documents, split.records, len(split.shards))
            row = " ".join(f"{number:,}" if isinstance(number, int) else number for number in numbers)
            assert f" {name} {row} " in text
        lengths, read = one.sample.documents, one.sample.documents.documents
        shown = [
            one.train.tokens / one.train.documents,
            lengths.quantile(Fraction(1, 2)),
            lengths.quantile(Fraction(99, 100)),
        ]
        numbers_row = " ".join(f"{round(number or 0):,}" for number in [*shown, lengths.lengths[-1]])
        assert f"{one.name} {numbers_row} {read:,} of {one.train.documents:,}" in text
        assert one.manifest.fingerprint[:16] in text
    packing = report.mixed[report.batch]
    assert f"about {packing.sequences:,} sequences" in text
    assert f"{100 * packing.padding:.2f} % of all positions padding" in text


def test_rows_that_were_left_out(report: OutputReport, page: str) -> None:
    (hostile,) = [one for one in report.datasets if one.name == "hostile_texts"]
    skipped = hostile.manifest.skipped
    assert min(skipped["null"], skipped["empty"]) > 0
    text = Page.of(page).text
    assert "dataset empty text no value (null) all" in text
    assert f"hostile_texts {skipped['empty']} {skipped['null']} {skipped['empty'] + skipped['null']}" in text


def test_hostile_documents_are_text(output: Path, page: str) -> None:
    parsed = Page.of(page)
    folder = str(output / "hostile_texts")
    sample = sample_split(folder, find_manifests(folder)[folder], "train")
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    assert len(sample.excerpts) == 3
    for excerpt in sample.excerpts:
        decoded = tokenizer.decode(list(excerpt.ids), skip_special_tokens=False)
        assert visible(decoded.rstrip("\ufffd")) in parsed.raw_text


def test_every_hostile_document_is_shown_as_it_is(report: OutputReport) -> None:
    """The page is drawn with excerpts of all of them, also of those that the sample did not choose."""
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    tokenizer.encode_special_tokens = True
    (hostile, _) = report.datasets
    excerpts = tuple(
        dataclasses.replace(
            hostile.sample.excerpts[0], ids=tuple(tokenizer.encode(text, add_special_tokens=False).ids), tokens=1
        )
        for text in HOSTILE
    )
    changed = dataclasses.replace(hostile, sample=dataclasses.replace(hostile.sample, excerpts=excerpts))
    parsed = Page.of(render_report(dataclasses.replace(report, datasets=(changed,)), ()))
    for text in HOSTILE:
        assert visible(tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids)) in parsed.raw_text
    assert not {"script", "iframe"} & {tag for tag, _ in parsed.elements}
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", parsed.raw_text)


def test_special_tokens_are_marked(page: str) -> None:
    assert "<b>&lt;|eos|&gt;</b>" in page


def test_pieces_are_the_text(output: Path) -> None:
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    encoded = tokenizer.encode("Brötchen für 你好 👩‍👩‍👧", add_special_tokens=False).ids
    pieces = token_pieces(tokenizer, [*encoded, EOS])
    assert "".join(text for text, _ in pieces) == tokenizer.decode([*encoded, EOS], skip_special_tokens=False)
    assert [number for _, numbers in pieces for number in numbers] == [*encoded, EOS]


@given(st.text())
def test_visible_text_has_no_control_characters(text: str) -> None:
    shown = visible(text.encode("utf-8", "replace").decode())
    assert all(
        character.isprintable() or character in "\n\t\u200c\u200d\u00ad" or character.isspace() for character in shown
    )


def test_sources_and_their_revisions(report: OutputReport, page: str) -> None:
    text = Page.of(page).text
    assert f"hostile_texts – {FOLDER}: 1 file" in text
    assert "plain – plain: 2 files" in text
    (hostile, plain) = report.datasets
    commit = "a1b2" * 10
    entries = [
        entry.model_copy(update={"path": f"hf://datasets/owner/name@{commit}/de/{number:03d}.parquet"})
        for number, entry in enumerate([*plain.manifest.source] * 25)
    ]
    manifest = plain.manifest.model_copy(update={"source": entries})
    changed = dataclasses.replace(report, datasets=(hostile, dataclasses.replace(plain, manifest=manifest)))
    parsed = Page.of(render_report(changed, ()))
    assert f"owner/name at {commit[:12]}: {len(entries)} files" in parsed.text
    assert f"https://huggingface.co/datasets/owner/name/tree/{commit}" in [one["href"] for one in parsed.all("a")]
    assert f"and {len(entries) - 40} more, in manifest.json" in parsed.text


def test_reports_are_the_same_every_time(report: OutputReport, output: Path, page: str) -> None:
    again = read_report(str(output))
    assert render_report(again, charts(again)) == page


def test_throughput_comes_from_the_times_of_files(output: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(output, tmp_path / "out"))
    shards = sorted(copy.glob("*/*.arecord"))
    for number, shard in enumerate(shards):
        # Ten minutes of work, an hour in the middle of which nothing happened.
        seconds = 1_700_000_000 + 600 * number / len(shards) + (3600 if number > len(shards) // 2 else 0)
        os.utime(shard, (seconds, seconds))
    report = read_report(str(copy))
    span = report.written[-1].seconds - report.written[0].seconds
    rate = sum(file.tokens for file in report.written[1:]) / span
    text = Page.of(render_report(report, ())).text
    assert "First shard 2023-11-14 22:13:20 UTC" in text
    assert f"{rate:.0f} tokens a second" in text
    assert "The longest pause between two shards was 1 h" in text


def test_files_that_were_all_written_at_once_have_no_chart(output: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(output, tmp_path / "out"))
    for shard in copy.glob("*/*.arecord"):
        os.utime(shard, (1_700_000_000, 1_700_000_000))
    report = read_report(str(copy))
    assert "0.0 s apart. That is too short" in Page.of(render_report(report, ())).text
    assert [chart.name for chart in charts(report)] == ["mixture", "documents", "packing"]


# Other outputs


@pytest.mark.slow
@pytest.mark.parametrize("record_format", ["text", "parquet", "megatron"])
def test_outputs_of_whole_documents(tmp_path: Path, record_format: str) -> None:
    records = {"format": record_format, "max_tokens": MAX_TOKENS}
    output = built(tmp_path, records=records, on_bad_rows="quarantine")
    report = read_report(str(output), length=16)
    # Built with the rows that were left out kept aside, which a report tells as well.
    (hostile,) = [one for one in report.datasets if one.name == "hostile_texts"]
    assert hostile.manifest.quarantine
    for one in report.datasets:
        assert one.sample.exact
        assert one.sample.records.sum() == one.sample.documents.tokens == one.train.tokens
        assert one.sample.documents.documents == one.train.documents
        part = sample_split(one.folder, one.manifest, "train", most_records=8)
        assert 0 < len(part.records) <= 8
    parsed = Page.of(render_report(report, ()))
    assert "<script>document.title = 'taken'</script>" in parsed.text
    for entry in hostile.manifest.quarantine:
        assert f"{sum(entry.rows.values())} of hostile_texts are kept in {entry.file}." in parsed.text
    if record_format == "parquet":
        assert "It is text in parquet, which is for training a tokenizer." in parsed.text
    elif record_format == "megatron":
        assert "It is in Megatron's format, of which trainers read one document after another" in parsed.text
    else:
        over = {one.name: one.trimmed for one in report.datasets}
        assert 0 < over["plain"] < over["hostile_texts"] < 1
        assert (
            f"hostile_texts: {100 * over['hostile_texts']:.2f} % of the tokens are beyond 16 in their document"
            in parsed.text
        )


@pytest.mark.slow
def test_records_that_do_not_say_where_documents_end(tmp_path: Path) -> None:
    output = built(tmp_path, records={"format": "tokens", "max_tokens": MAX_TOKENS})
    report = read_report(str(output))
    assert not any(one.sample.exact for one in report.datasets)
    text = Page.of(render_report(report, ())).text
    assert "Records of hostile_texts, plain have neither BOS nor EOS" in text


@pytest.mark.slow
def test_a_short_source_is_not_called_exact(tmp_path: Path) -> None:
    path = mix_of(tmp_path)
    content = yaml.safe_load(path.read_text())
    content["datasets"]["plain"] |= {"tokens": 100_000, "on_shortfall": "keep"}
    path.write_text(yaml.safe_dump(content))
    build(load_config(str(path)), str(tmp_path / "out"), quiet=True)
    report = read_report(str(tmp_path / "out"))
    missing = sum(split.missing for one in report.datasets for split in one.manifest.splits.values())
    parsed = Page.of(render_report(report, ()))
    assert missing > 90_000
    assert f"✗ {missing:,} tokens are missing of the 103,200 that were wanted" in parsed.text
    assert "exact" not in parsed.text[:100]
    assert (
        charts(report)[0].description.endswith("2.91 % of 97.09 % wanted.")
        or "97.09 % wanted" in charts(report)[0].description
    )


def test_a_tokenizer_that_is_gone(output: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(output / "plain", tmp_path / "plain"))
    # Another one than those that this process has loaded already.
    manifest = json.loads((copy / "manifest.json").read_bytes())
    manifest["tokenizer"]["sha256"] = "0" * 64
    (copy / "manifest.json").write_text(json.dumps(manifest))
    text = Page.of(render_report(read_report(str(copy)), ())).text
    assert "is not beside the dataset any more" in text


@pytest.mark.slow
def test_the_pngs_are_pictures(output: Path, tmp_path: Path) -> None:
    write_report(str(output), str(tmp_path / "report.html"), png_folder=str(tmp_path / "png"), quiet=True)
    names = sorted(path.name for path in (tmp_path / "png").iterdir())
    assert names == ["documents.png", "mixture.png", "packing.png"]
    for name in names:
        pixels = image.imread(tmp_path / "png" / name)
        assert pixels.shape[1] > 1200
        assert pixels.min() < 0.5 < pixels.max()


def test_charts_are_drawn_in_every_look(report: OutputReport) -> None:
    for chart in charts(report):
        wide, narrow = (chart.svg(look) for look in LOOKS.values())
        assert wide != narrow
        for svg in (wide, narrow):
            assert svg.startswith('<svg viewBox="')
            # A page's style has all of its colours, for light and dark.
            assert not re.search(r'style="[^"]*#[0-9a-f]{3}', svg)
            assert {"var(--ink)", "var(--bar)"} <= set(re.findall(r"var\([a-z-]+\)", svg))


def test_what_a_drawing_refers_to_is_its_own(report: OutputReport, page: str) -> None:
    parsed = Page.of(page)
    drawn = [chart.svg(look) for chart in charts(report) for look in LOOKS.values()]
    assert all(svg in page for svg in drawn)
    for svg in drawn:
        own = re.findall(r' id="([^"]+)"', svg)
        assert set(re.findall(r'href="#([^"]+)"', svg)) | set(re.findall(r"url\(#([^)]+)\)", svg)) <= set(own)
    assert not [one for one in parsed.all("g") if "id" in one]


@pytest.mark.slow
def test_a_report_on_a_bucket_is_that_of_a_local_output(gcs_prefix: str, output: Path, page: str) -> None:
    for path in sorted(output.rglob("*")):
        if path.is_file():
            storage.upload(str(path), f"{gcs_prefix}/{path.relative_to(output)}")
    write_report(gcs_prefix, f"{gcs_prefix}/page/report.html", png_folder=f"{gcs_prefix}/page", quiet=True)
    found = storage.read_bytes(f"{gcs_prefix}/page/report.html").decode()
    assert "in a bucket, when they were published" in found
    cut = slice(0, found.index('<section id="throughput"'))
    assert found[cut] == page[cut]
    assert storage.read_bytes(f"{gcs_prefix}/page/mixture.png").startswith(b"\x89PNG")
    folder = f"{gcs_prefix}/plain"
    sample = sample_split(folder, find_manifests(folder)[folder], "train", most_records=8)
    assert (len(sample.records), sample.whole) == (8, False)
    shard = sorted(path for path, _ in list_files(folder, "train-*"))[0]
    storage.delete([shard])
    with pytest.raises(BroetchenError, match=re.escape(shard)):
        read_report(gcs_prefix)


# The command


@pytest.mark.slow
def test_the_command(output: Path, tmp_path: Path, page: str) -> None:
    result = run_command("report", output, "--output", tmp_path / "r.html", "--png", tmp_path / "png")
    assert (result.returncode, without_hint(result.stderr)) == (0, "reading samples\n")
    assert result.stdout == f"The report is {tmp_path / 'r.html'}\n"
    assert (tmp_path / "r.html").read_text() == page
    assert (tmp_path / "png" / "mixture.png").exists()


def test_nothing_to_report_on(tmp_path: Path) -> None:
    with pytest.raises(BroetchenError, match="no finished dataset here"):
        write_report(str(tmp_path), str(tmp_path / "r.html"), quiet=True)
    assert not (tmp_path / "r.html").exists()


# In a browser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHECK = """<!DOCTYPE html><meta charset="utf-8"><body><script>
const found = {};
async function look(width) {
  const frame = document.createElement("iframe");
  frame.style = `width: ${width}px; height: 900px; border: 0`;
  frame.src = "report.html";
  const loaded = new Promise(resolve => { frame.onload = resolve; });
  document.body.append(frame);
  await loaded;
  const page = frame.contentDocument;
  page.querySelectorAll("details").forEach(one => { one.open = true; });
  const root = page.documentElement;
  const wide = [...page.querySelectorAll("main *")].filter(
    one => !one.closest(".scroll, .document") && one.getBoundingClientRect().right > width + 1);
  found[width] = {
    overflow: root.scrollWidth - root.clientWidth,
    outside: wide.map(one => one.outerHTML.slice(0, 80)),
    charts: [...page.querySelectorAll(".chart svg")].map(one => one.getBoundingClientRect()).filter(one => one.width)
      .map(one => [one.width, one.height]),
    ink: frame.contentWindow.getComputedStyle(page.querySelector(".chart text")).fill,
    background: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
    title: page.title,
    scripts: page.scripts.length,
    frames: frame.contentWindow.length,
  };
}
(async () => {
  for (const width of [390, 1200]) await look(width);
  document.body.innerHTML = "";
  document.title = encodeURIComponent(JSON.stringify(found));
})();
</script>"""


class _Serves(http.server.SimpleHTTPRequestHandler):
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def served(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """A folder on loopback: its address, and the paths that are asked for."""
    asked: list[str] = []
    handler = type("Serves", (_Serves,), {"asked": asked})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here: apt-get install chromium")
def test_in_a_browser(page: str, tmp_path: Path) -> None:
    """Nothing but the page is fetched, no script of its own runs, and it fits a phone, in light and in dark."""
    (tmp_path / "report.html").write_text(page)
    (tmp_path / "check.html").write_text(CHECK)
    colours = []
    for scheme, setting in (("light", 1), ("dark", 0)):
        with served(tmp_path) as (address, asked):
            result = subprocess.run(
                [
                    str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                    "--disable-background-networking", "--disable-component-update", "--disable-sync",
                    f"--user-data-dir={tmp_path / scheme}", f"--blink-settings=preferredColorScheme={setting}",
                    "--virtual-time-budget=20000", "--window-size=1300,900", "--dump-dom", f"{address}/check.html",
                ],
                capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        title = re.search(r"<title>([^<]+)</title>", result.stdout)
        assert title, result.stdout[-500:] + result.stderr[-500:]
        found: Mapping[str, Any] = json.loads(urllib.parse.unquote(title[1]))
        assert set(asked) - {"/favicon.ico"} == {"/check.html", "/report.html"}
        for width, looked in found.items():
            assert looked["overflow"] <= 0, (width, looked)
            assert looked["outside"] == []
            assert len(looked["charts"]) == 3
            assert all(
                0.7 * min(int(width), 900) < shown < int(width) and high > 80 for shown, high in looked["charts"]
            )
            assert (looked["title"], looked["scripts"], looked["frames"]) == ("reported – 5,200 tokens", 0, 0)
        colours.append((found["390"]["background"], found["390"]["ink"]))
    assert colours == [("rgb(250, 247, 242)", "rgb(107, 100, 91)"), ("rgb(22, 20, 18)", "rgb(164, 156, 145)")]
