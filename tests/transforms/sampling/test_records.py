from __future__ import annotations

from typing import Any

import numpy as np

from tests.support.corpora import BOS, EOS
from transforms.sampling.records import Framing


def ids(*tokens: int) -> Any:
    return np.array(tokens, np.int64)


def test_where_documents_begin() -> None:
    with_eos, with_bos, with_none = Framing(None, EOS, 3), Framing(BOS, None, 3), Framing(None, None, 3)
    assert [with_eos.begins(ids(5, last), ids(5)) for last in (EOS, 6)] == [True, False]
    assert [with_bos.begins(ids(5, 6, 7), ids(first)) for first in (BOS, 7)] == [True, False]
    assert [with_none.begins(before, ids(7)) for before in (ids(5, 6), ids(5, 6, 7))] == [True, False]
    assert all(framing.begins(None, ids(9)) for framing in (with_eos, with_bos, with_none))
