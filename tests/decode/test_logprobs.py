"""Log probabilities are the model's own."""

import numpy as np

from edgewise.decode.logprobs import token_logprobs


def test_log_softmax_of_the_raw_row() -> None:
    row = np.random.default_rng(0).standard_normal(50).astype(np.float32) * 30
    wide = row.astype(np.float64)
    want = wide - wide.max() - np.log(np.exp(wide - wide.max()).sum())
    chosen, *others = token_logprobs(row, 7, 5)
    assert chosen.token == 7
    assert np.isclose(chosen.logprob, want[7], rtol=1e-12)
    assert [o.token for o in others] == np.argsort(-want, kind="stable")[:5].tolist()
    assert np.allclose([o.logprob for o in others], [want[o.token] for o in others], rtol=1e-12, atol=1e-12)


def test_ties_by_id_and_zero_alternatives() -> None:
    row = np.zeros(6, np.float32)
    assert [x.token for x in token_logprobs(row, 4, 3)] == [4, 0, 1, 2]
    assert len(token_logprobs(row, 4, 0)) == 1
    assert len(token_logprobs(row, 4, 20)) == 7
