"""Pairs of files in Megatron's format: byte for byte those of its description, and read back by us and by MaxText."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from maxtext.input_pipeline._mmap_datasource import MMapIndexedDataset, create_mmap_npy_source

from tests.support.megatron.pairs import write_pair
from transforms.checksums import mark_of
from transforms.dataset.reader import ShardReader
from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.megatron import index, reader
from transforms.megatron.index import id_type, index_parts, index_path, index_size, lengths_within
from transforms.megatron.reader import PairReader, read_ids
from transforms.megatron.writer import IdWriter, write_index

SMALL, LARGE = 65_499, 65_500
# (vocabulary, documents)
corpora = st.sampled_from([SMALL, LARGE, 1 << 20]).flatmap(
    lambda vocabulary: st.tuples(
        st.just(vocabulary), st.lists(st.lists(st.integers(0, vocabulary - 1), min_size=1, max_size=9), max_size=30)
    )
)


def write(path: Path, documents: Sequence[Sequence[int]], vocab_size: int) -> None:
    """As a build does."""
    with IdWriter(str(path), vocab_size=vocab_size) as writer:
        for document in documents:
            writer.write(np.array(document, np.uint32), 1)
    assert writer.close().records == len(documents)
    write_index(index_path(str(path)), np.array([*map(len, documents)], np.int64), vocab_size)


@given(corpora, st.integers(1, 4))
def test_they_are_those_of_the_format_byte_for_byte(corpus: tuple[int, list[list[int]]], at_once: int) -> None:
    vocab_size, documents = corpus
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        for module in (index, reader):
            patch.setattr(module, "_DOCUMENTS_AT_ONCE", at_once)
        patch.setattr(reader, "_BYTES_AT_ONCE", 3 * at_once)
        folder = Path(name)
        write_pair(folder / "theirs", documents, vocab_size)
        write(folder / "ours.bin", documents, vocab_size)
        for ending in ("bin", "idx"):
            assert (folder / f"ours.{ending}").read_bytes() == (folder / f"theirs.{ending}").read_bytes()
        assert (folder / "ours.idx").stat().st_size == index_size(len(documents))
        with PairReader(str(folder / "ours.bin")) as pair:
            assert len(pair) == len(documents)
            assert pair.id_type == id_type(vocab_size)
            assert [ids.tolist() for ids in pair.between(0, len(pair))] == documents
            for number, document in enumerate(documents):
                assert [ids.tolist() for ids in pair.between(number, number + 1)] == [document]
        theirs = MMapIndexedDataset(str(folder / "ours"))
        assert [ids.tolist() for ids in theirs[:]] == documents
        theirs.close()


@pytest.mark.parametrize(
    ("vocab_size", "kind"), [(1, "uint16"), (SMALL, "uint16"), (LARGE, "int32"), (65_536, "int32"), (1 << 18, "int32")]
)
def test_the_vocabulary_decides_on_the_type_of_ids(tmp_path: Path, vocab_size: int, kind: str) -> None:
    """As `DType.optimal_dtype` of Megatron has it."""
    assert id_type(vocab_size).name == kind
    write(tmp_path / "a.bin", [[0, vocab_size - 1]], vocab_size)
    dataset = MMapIndexedDataset(str(tmp_path / "a"))
    assert (np.dtype(dataset.dtype).name, dataset[0].tolist()) == (kind, [0, vocab_size - 1])


@pytest.mark.parametrize("token", [-1, 300, 65_536 + 7])
def test_an_id_that_the_tokenizer_has_not_is_never_written(tmp_path: Path, token: int) -> None:
    """It would become another one."""
    with pytest.raises(BroetchenError, match=r"a\.bin: ids from .* and the tokenizer has 300"):  # noqa: SIM117
        with IdWriter(str(tmp_path / "a.bin"), vocab_size=300) as writer:
            writer.write(np.array([5, token]), 1)
    assert not list(tmp_path.iterdir())


def test_a_pair_in_a_bucket(gcs_prefix: str) -> None:
    path, documents = f"{gcs_prefix}/a/train-00000-of-00001.bin", [[1, 2, 3], [4]]
    with IdWriter(path, vocab_size=10) as writer:
        writer.write(np.array([1, 2, 3, 4]), 2)
    mark = write_index(index_path(path), np.array([3, 1]), 10)
    assert mark == mark_of(storage.read_bytes(index_path(path)))
    with ShardReader(path, "megatron", expected=2) as shard:
        assert [ids.tolist() for ids in shard.ids()] == documents
        assert [ids.tolist() for ids in shard.ids(1, 2)] == documents[1:]
    assert np.concatenate(list(read_ids(path, id_type(10), 1, 2))).tolist() == [2, 3]


@given(st.lists(st.integers(0, 5), max_size=8), st.integers(0, 45), st.integers(0, 45))
def test_the_lengths_of_documents_within_a_stretch(lengths: list[int], skip: int, take: int) -> None:
    """Token by token."""
    owners = [document for document, length in enumerate(lengths) for _ in range(length)][skip : skip + take]
    expected = [owners.count(document) for document in dict.fromkeys(owners)]
    assert lengths_within(np.array(lengths, np.int64), skip, take).tolist() == expected


@pytest.mark.parametrize(("skip", "take"), [(0, 10), (3, 4), (9, 5), (10, 1), (0, 0)])
def test_a_stretch_of_ids_is_read_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skip: int, take: int
) -> None:
    monkeypatch.setattr(reader, "_BYTES_AT_ONCE", 6)
    write(tmp_path / "a.bin", [list(range(10))], 100)
    found = [ids.tolist() for ids in read_ids(str(tmp_path / "a.bin"), id_type(100), skip, take)]
    assert list(itertools.chain(*found)) == list(range(10))[skip : skip + take]
    assert all(len(part) <= 3 for part in found)


def test_the_exact_order_of_maxtext_reads_it(tmp_path: Path) -> None:
    """Its `mmap_npy` reads two shards: documents one behind another, in samples of which each has a token more."""
    ends = np.cumsum(np.arange(2, 40)).tolist()
    documents = [list(range(start, end)) for start, end in itertools.pairwise([0, *ends])]
    write(tmp_path / "train-00000-of-00002.bin", documents[:20], 1000)
    write(tmp_path / "train-00001-of-00002.bin", documents[20:], 1000)
    source = create_mmap_npy_source(f"{tmp_path / 'npy'}|{tmp_path}", eod_id=0, seq_length=8, split_sentences=False)
    samples = [np.asarray(source[number]["text"]).tolist() for number in range(len(source))]
    assert len(samples) == (ends[-1] - 1) // 8
    read = [token for sample in samples for token in sample[:8]]
    assert len(set(read)) == len(read) == 8 * len(samples)
    firsts, lasts = ({document[place] for document in documents} for place in (0, -1))
    for one, other in (pair for sample in samples for pair in itertools.pairwise(sample)):
        assert other == one + 1 or (one in lasts and other in firsts)


# --- What came from somewhere -----------------------------------------------------------------------------------------


def damaged(name: str, content: bytes) -> bytes:
    """The index of three documents of 3, 1 and 2 ids of two bytes, with something wrong in it."""

    def put(at: int, number: int, size: int = 8) -> bytes:
        return content[:at] + number.to_bytes(size, "little", signed=number < 0) + content[at + size :]

    lengths, pointers, firsts = 34, 34 + 3 * 4, 34 + 3 * 4 + 3 * 8
    return {
        "empty": b"",
        "cut in the head": content[:33],
        "cut in the middle": content[:60],
        "cut at the end": content[:-1],
        "one byte too many": content + b"\0",
        "another magic": b"X" + content[1:],
        "another version": put(9, 2),
        "an unknown type": put(17, 77, 1),
        "floats": put(17, 7, 1),
        "four bytes an id": put(17, 4, 1),
        "huge counts": put(18, 2**63 - 1)[:26] + (2**63).to_bytes(8, "little") + content[34:],
        "all ones": content[:18] + b"\xff" * 16 + content[34:],
        "many sequences": put(18, 1 << 40),
        "many documents": put(26, 1 << 40),
        "several sequences a document": put(26, 3),
        "no documents": content[:18]
        + (0).to_bytes(8, "little")
        + (1).to_bytes(8, "little")
        + (0).to_bytes(8, "little"),
        "a negative length": put(lengths, -3, 4),
        "a length of nothing": put(lengths + 4, 0, 4),
        "a huge length": put(lengths, 2**31 - 1, 4),
        "a longer length": put(lengths + 8, 3, 4),
        "a pointer elsewhere": put(pointers + 8, 4),
        "a negative pointer": put(pointers, -2),
        "a huge pointer": put(pointers + 16, 2**62),
        "pointers in another order": content[:pointers]
        + content[pointers + 8 : pointers + 16]
        + content[pointers : pointers + 8]
        + content[pointers + 16 :],
        "another first document": put(firsts, 1),
        "a document of two": put(firsts + 16, 1),
        "an end elsewhere": put(firsts + 24, 2),
    }[name]


DAMAGE = (
    "empty", "cut in the head", "cut in the middle", "cut at the end", "one byte too many", "another magic",
    "another version", "an unknown type", "floats", "four bytes an id", "huge counts", "all ones", "many sequences",
    "many documents", "several sequences a document", "no documents", "a negative length", "a length of nothing",
    "a huge length", "a longer length", "a pointer elsewhere", "a negative pointer", "a huge pointer",
    "pointers in another order", "another first document", "a document of two", "an end elsewhere",
)  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_index_is_one_clear_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / "train-00000-of-00001.bin"
    write(path, [[5, 6, 7], [8], [9, 10]], 300)
    whole = path.with_suffix(".idx").read_bytes()
    assert whole == b"".join(index_parts(np.array([3, 1, 2]), id_type(300)))
    path.with_suffix(".idx").write_bytes(damaged(name, whole))
    with (
        pytest.raises(BroetchenError, match=r"train-00000-of-00001\.(idx|bin): .*see what broetchen verify says"),
        ShardReader(str(path), "megatron"),
    ):
        pass


@pytest.mark.parametrize("ending", ["bin", "idx"])
@pytest.mark.parametrize("state", ["gone", "a link", "a folder", "shorter", "longer"])
def test_a_file_that_is_none_is_one_clear_error(tmp_path: Path, ending: str, state: str) -> None:
    path = tmp_path / "train-00000-of-00001.bin"
    write(path, [[5, 6, 7], [8]], 300)
    file = path.with_suffix(f".{ending}")
    content = file.read_bytes()
    file.unlink()
    if state == "a link":
        (tmp_path / "elsewhere").write_bytes(content)
        file.symlink_to(tmp_path / "elsewhere")
    elif state == "a folder":
        file.mkdir()
    elif state != "gone":
        file.write_bytes(content[:-1] if state == "shorter" else content + b"!")
    with pytest.raises(BroetchenError, match=rf"train-00000-of-00001\.{ending}"), PairReader(str(path)):
        pass


def test_a_file_that_becomes_shorter_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write(path, [[5, 6, 7], [8]], 300)
    with PairReader(str(path)) as pair:
        path.write_bytes(b"")
        with pytest.raises(BroetchenError, match=r"a\.bin: has become shorter while it was read"):
            list(pair.between(0, 2))


def test_a_pair_holds_no_text(tmp_path: Path) -> None:
    write(tmp_path / "a.bin", [[5]], 300)
    with ShardReader(str(tmp_path / "a.bin"), "megatron") as shard:
        for read in (lambda: shard.text(0), lambda: next(shard.texts())):
            with pytest.raises(BroetchenError, match="holds ids, and no text"):
                read()
