"""Code points of Arrow text buffers: which ones every encoding engine knows alike, and exact partial normalization.

Encoding engines carry Unicode tables of different versions: in `tokenizers` 0.23 the regular expressions know Unicode
16 and the normalizers Unicode 9; gigatoken 0.10 knows Unicode 17, Python 3.12's `unicodedata` Unicode 15. On a code
point that one of them does not know they may split or normalize a text differently, and then the ids would depend on
the engine. So the code points on which the engines were found to agree are listed here, and a document with any other
goes to the reference engine. The list holds the characters that Unicode 14.0 had assigned in the basic plane, among the
mathematical letters and among the pictographs, less everything that the normalizers treat differently. It is not a
matter of trust: the tests compare the engines on every code point of the list, in many contexts, and in every pair that
composes.

The other half of the module is normalization at the speed of the engine: most documents hold nothing that NFKC would
change, and in most others it changes a few characters. Only the surroundings of those are normalized.

All functions here are pure and work on whole batches of documents: `data` is uint8, shape (bytes,), valid UTF-8, all
documents one after another; `offsets` is int64, shape (documents + 1,), and document i is
`data[offsets[i]:offsets[i + 1]]`, as in the buffers of a `pyarrow.LargeStringArray`.
"""

from __future__ import annotations

import functools
import unicodedata
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Form = Literal["NFC", "NFKC"]

CODE_POINTS = 0x110000

# Segments closer than this many bytes are normalized as one: a call costs about as much as the bytes between.
_COALESCE_BYTES = 64

# Inclusive ranges, hexadecimal; the surrogates are left out, since UTF-8 cannot hold them.
_AGREED = """
0-377 37A-37F 384-38A 38C 38E-3A1 3A3-52F 531-556 559-58A 58D-58F 591-5C7 5D0-5EA 5EF-5F4 600-70D 70F-74A
74D-7B1 7C0-7FA 7FE-82D 830-83E 840-85B 85E 860-86A 870-88E 890-891 8A0-8C9 8D4-983 985-98C 98F-990 993-9A8
9AA-9B0 9B2 9B6-9B9 9BC-9C4 9C7-9C8 9CB-9CE 9D7 9DC-9DD 9DF-9E3 9E6-9FD A01-A03 A05-A0A A0F-A10 A13-A28 A2A-A30
A32-A33 A35-A36 A38-A39 A3C A3E-A42 A47-A48 A4B-A4D A51 A59-A5C A5E A66-A76 A81-A83 A85-A8D A8F-A91 A93-AA8 AAA-
AB0 AB2-AB3 AB5-AB9 ABC-AC5 AC7-AC9 ACB-ACD AD0 AE0-AE3 AE6-AF1 AF9-AFF B01-B03 B05-B0C B0F-B10 B13-B28 B2A-B30
B32-B33 B35-B39 B3C-B44 B47-B48 B4B-B4D B55-B57 B5C-B5D B5F-B63 B66-B77 B82-B83 B85-B8A B8E-B90 B92-B95 B99-B9A
B9C B9E-B9F BA3-BA4 BA8-BAA BAE-BB9 BBE-BC2 BC6-BC8 BCA-BCD BD0 BD7 BE6-BFA C00-C0C C0E-C10 C12-C28 C2A-C39
C3D-C44 C46-C48 C4A-C4D C55-C56 C58-C5A C5D C60-C63 C66-C6F C77-C8C C8E-C90 C92-CA8 CAA-CB3 CB5-CB9 CBC-CC4
CC6-CC8 CCA-CCD CD5-CD6 CDD-CDE CE0-CE3 CE6-CEF CF1-CF2 D00-D0C D0E-D10 D12-D3A D3D-D44 D46-D48 D4A-D4F D54-D63
D66-D7F D81-D83 D85-D96 D9A-DB1 DB3-DBB DBD DC0-DC6 DCA DCF-DD4 DD6 DD8-DDF DE6-DEF DF2-DF4 E01-E3A E3F-E5B
E81-E82 E84 E86-E8A E8C-EA3 EA5 EA7-EB9 EBB-EBD EC0-EC4 EC6 EC8-ECD ED0-ED9 EDC-EDF F00-F47 F49-F6C F71-F97
F99-FBC FBE-FCC FCE-FDA 1000-10C5 10C7 10CD 10D0-1248 124A-124D 1250-1256 1258 125A-125D 1260-1288 128A-128D
1290-12B0 12B2-12B5 12B8-12BE 12C0 12C2-12C5 12C8-12D6 12D8-1310 1312-1315 1318-135A 135D-137C 1380-1399
13A0-13F5 13F8-13FD 1400-169C 16A0-16F8 1700-1714 171F-1736 1740-1753 1760-176C 176E-1770 1772-1773 1780-17DD
17E0-17E9 17F0-17F9 1800-1819 1820-1878 1880-18AA 18B0-18F5 1900-191E 1920-192B 1930-193B 1940 1944-196D
1970-1974 1980-19AB 19B0-19C9 19D0-19DA 19DE-1A1B 1A1E-1A5E 1A60-1A7C 1A7F-1A89 1A90-1A99 1AA0-1AAD 1AB0-1ABE
1B00-1B4C 1B50-1B7E 1B80-1BF3 1BFC-1C37 1C3B-1C49 1C4D-1C88 1C90-1CBA 1CBD-1CC7 1CD0-1CFA 1D00-1DF5 1DFB-1F15
1F18-1F1D 1F20-1F45 1F48-1F4D 1F50-1F57 1F59 1F5B 1F5D 1F5F-1F7D 1F80-1FB4 1FB6-1FC4 1FC6-1FD3 1FD6-1FDB
1FDD-1FEF 1FF2-1FF4 1FF6-1FFE 2000-2064 2066-2071 2074-208E 2090-209C 20A0-20C0 20D0-20F0 2100-218B 2190-2426
2440-244A 2460-2B73 2B76-2B95 2B97-2CF3 2CF9-2D25 2D27 2D2D 2D30-2D67 2D6F-2D70 2D7F-2D96 2DA0-2DA6 2DA8-2DAE
2DB0-2DB6 2DB8-2DBE 2DC0-2DC6 2DC8-2DCE 2DD0-2DD6 2DD8-2DDE 2DE0-2E5D 2E80-2E99 2E9B-2EF3 2F00-2FD5 2FF0-2FFB
3000-303F 3041-3096 3099-30FF 3105-312F 3131-318E 3190-31E3 31F0-321E 3220-32FE 3300-A48C A490-A4C6 A4D0-A62B
A640-A6F7 A700-A7CA A7D0-A7D1 A7D3 A7D5-A7D9 A7F5-A82B A830-A839 A840-A877 A880-A8C5 A8CE-A8D9 A8E0-A953
A95F-A97C A980-A9CD A9CF-A9D9 A9DE-A9FE AA00-AA36 AA40-AA4D AA50-AA59 AA5C-AAC2 AADB-AAF6 AB01-AB06 AB09-AB0E
AB11-AB16 AB20-AB26 AB28-AB2E AB30-AB68 AB6A-AB6B AB70-ABED ABF0-ABF9 AC00-D7A3 D7B0-D7C6 D7CB-D7FB E000-FA6B
FA6D FA70-FACE FAD2-FAD4 FAD8-FAD9 FB00-FB06 FB13-FB17 FB1D-FB36 FB38-FB3C FB3E FB40-FB41 FB43-FB44 FB46-FBC2
FBD3-FD8F FD92-FDC7 FDCF FDF0-FE19 FE20-FE52 FE54-FE66 FE68-FE6B FE70-FE74 FE76-FEFC FEFF FF01-FFBE FFC2-FFC7
FFCA-FFCF FFD2-FFD7 FFDA-FFDC FFE0-FFE6 FFE8-FFEE FFF9-FFFD 1D400-1D454 1D456-1D49C 1D49E-1D49F 1D4A2
1D4A5-1D4A6 1D4A9-1D4AC 1D4AE-1D4B9 1D4BB 1D4BD-1D4C3 1D4C5-1D505 1D507-1D50A 1D50D-1D514 1D516-1D51C
1D51E-1D539 1D53B-1D53E 1D540-1D544 1D546 1D54A-1D550 1D552-1D6A5 1D6A8-1D7CB 1D7CE-1D7FF 1F000-1F02B
1F030-1F093 1F0A0-1F0AE 1F0B1-1F0BF 1F0C1-1F0CF 1F0D1-1F0F5 1F100-1F16B 1F16D-1F1AD 1F1E6-1F202 1F210-1F23B
1F240-1F248 1F250-1F251 1F260-1F265 1F300-1F6D7 1F6DD-1F6EC 1F6F0-1F6FC 1F700-1F773 1F780-1F7D8 1F7E0-1F7EB
1F7F0 1F800-1F80B 1F810-1F847 1F850-1F859 1F860-1F887 1F890-1F8AD 1F8B0-1F8B1 1F900-1FA53 1FA60-1FA6D
1FA70-1FA74 1FA78-1FA7C 1FA80-1FA86 1FA90-1FAAC 1FAB0-1FABA 1FAC0-1FAC5 1FAD0-1FAD9 1FAE0-1FAE7 1FAF0-1FAF6
"""


@functools.cache
def agreed() -> NDArray[np.bool_]:
    """Where all engines know a code point alike: bool, shape (0x110000,), read-only.

    >>> bool(agreed()[ord("ß")]), bool(agreed()[0x18DC3])
    (True, False)
    """
    table = np.zeros(CODE_POINTS, dtype=np.bool_)
    for item in _AGREED.split():
        first, _, last = item.partition("-")
        table[int(first, 16) : int(last or first, 16) + 1] = True
    table.flags.writeable = False
    return table


@functools.cache
def inert(form: Form) -> NDArray[np.bool_]:
    r"""Where a code point can be cut before, and does not change by itself: bool, shape (0x110000,), read-only.

    An inert character normalizes to itself, has combining class 0 (so it is never reordered) and cannot be the second
    half of a composition. So a text can be cut before any inert code point and each part normalized by itself (a
    "boundary before" in the words of UAX #15), and a run of them stays as it is. Code points that are not `agreed`
    count as not inert, which is always right, and spares looking them up.

    >>> [character for character in "aä…ﬁ\u0301" if not inert("NFKC")[ord(character)]]
    ['…', 'ﬁ', '\u0301']
    """
    points = np.flatnonzero(agreed())
    characters = [chr(code_point) for code_point in points.tolist()]
    stays = np.fromiter(map(functools.partial(unicodedata.is_normalized, form), characters), np.bool_)
    starts = np.fromiter(map(unicodedata.combining, characters), np.uint8) == 0
    table = np.zeros(CODE_POINTS, dtype=np.bool_)
    table[points] = stays & starts
    table[_second_halves()] = False
    table.flags.writeable = False
    return table


@functools.cache
def _second_halves() -> list[int]:
    """The second halves of canonical compositions (all listed below U+20000), and of Hangul, composed by rule."""
    seconds = {*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)}
    for mapping in filter(None, map(unicodedata.decomposition, map(chr, range(0x20000)))):
        if not mapping.startswith("<"):
            seconds.update(int(part, 16) for part in mapping.split()[1:])
    return sorted(seconds)


def non_ascii(data: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """The non-ASCII characters of valid UTF-8: byte positions of their first bytes, and their code points.

    >>> positions, code_points = non_ascii(np.frombuffer("aä…😀".encode(), np.uint8))
    >>> positions.tolist(), [chr(code_point) for code_point in code_points]
    ([1, 3, 6], ['ä', '…', '😀'])
    """
    positions = np.flatnonzero(data >= 0xC2).astype(np.int64, copy=False)
    lead = data[positions]
    code_points = _bits(lead, 0x1F, 6) | _bits(data[positions + 1], 0x3F, 0)
    for first_lead, mask, size in ((0xE0, 0x0F, 3), (0xF0, 0x07, 4)):
        longer = np.flatnonzero(lead >= first_lead)
        value = _bits(lead[longer], mask, 6 * (size - 1))
        for i in range(1, size):
            value |= _bits(data[positions[longer] + i], 0x3F, 6 * (size - 1 - i))
        code_points[longer] = value
    return positions, code_points


def _bits(octets: NDArray[np.uint8], mask: int, shift: int) -> NDArray[np.uint32]:
    return (octets & np.uint8(mask)).astype(np.uint32) << np.uint32(shift)


def documents_at(offsets: NDArray[np.int64], positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """The documents that hold these byte positions: int64, one index a position."""
    return np.searchsorted(offsets, positions, side="right") - 1


def normalize(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    positions: NDArray[np.int64],
    code_points: NDArray[np.uint32],
    form: Form,
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Every document normalized, as `unicodedata.normalize(form, document)` would do to each.

    Args:
        data, offsets: the documents.
        positions, code_points: their non-ASCII characters, as `non_ascii` gives them.
        form: "NFC" or "NFKC".

    Returns:
        Data and offsets of the normalized documents; the same arrays where nothing changes.
    """
    changing = positions[~inert(form)[code_points]]
    if not len(changing):
        return data, offsets
    starts, ends = _segments(data, offsets, changing)
    text = memoryview(data)
    parts: list[bytes | memoryview] = []
    growth = np.empty(len(starts), dtype=np.int64)
    done = 0
    for i, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        normalized = unicodedata.normalize(form, str(text[start:end], "utf-8")).encode()
        parts += (text[done:start], normalized)
        growth[i] = len(normalized) - (end - start)
        done = end
    parts.append(text[done:])
    shifts = np.concatenate([[0], np.cumsum(growth)])
    # A segment lies within one document, so it moves every offset after its start.
    return np.frombuffer(b"".join(parts), dtype=np.uint8), offsets + shifts[np.searchsorted(starts, offsets)]


def _segments(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], changing: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Byte ranges, in order and apart, that can be normalized by themselves and hold all the `changing` characters.

    A range starts with the inert character before a run of changing ones, with which they may compose, or where the
    document starts, and ends before the next inert character. Ranges close to each other are joined.
    """
    lead = data[changing]
    ends = changing + 2 + (lead >= 0xE0) + (lead >= 0xF0)
    document_starts = offsets[documents_at(offsets, changing)]
    starts = np.maximum(changing - 1, document_starts)
    for _ in range(3):  # back to the first byte of the character before
        starts -= (data[starts] & 0xC0) == 0x80
    apart = (starts[1:] - ends[:-1] > _COALESCE_BYTES) | (document_starts[1:] != document_starts[:-1])
    return starts[np.concatenate([[True], apart])], ends[np.concatenate([apart, [True]])]
