"""Statistics of selection against published numbers, and against a slow way of doing the same."""
import json
import os
import time
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from quantetf.evaluation import overfitting as o

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = Path(os.environ.get('QUANTETF_REAL_DATA') or ROOT.parent/'shared'/'data').parent/'golden'/'golden.json'


@pytest.fixture(scope='module')
def golden():
    if not GOLDEN.is_file(): pytest.skip('the file of reference numbers is absent')
    return json.loads(GOLDEN.read_text())


def test_expected_maximum_and_backtest_length(golden):
    for n,v in golden['expected_max_sharpe_unit']['cases'].items(): assert o.expected_max_sharpe(int(n))==pytest.approx(v, rel=1e-9)
    for n,v in golden['min_backtest_length_years']['cases'].items(): assert o.minimum_backtest_length(int(n))==pytest.approx(v, rel=1e-5)


def test_deflated_and_probabilistic_sharpe(golden):
    for c in golden['deflated_sharpe']['cases']:
        moments = dict(skew=c.get('skew', -3), kurtosis=c.get('kurtosis', 10))
        assert o.deflated_sharpe(2.5/250**.5, 1250, c['N'], .5/250, **moments)==pytest.approx(c['dsr'], rel=1e-6)
        if 'sr0_per_period' in c: assert o.expected_max_sharpe(c['N'], .5/250)==pytest.approx(c['sr0_per_period'], rel=1e-6)
    for c in golden['probabilistic_sharpe']['cases']:
        assert o.probabilistic_sharpe(1.59/12**.5, 24, 0, c['skew'], c['kurtosis'])==pytest.approx(c['psr'], abs=1e-6)


def test_cross_validation_equals_slicing_with_unequal_blocks_and_equal_strategies():
    r = np.random.default_rng(8).normal(.0002, .01, (331, 9))
    r[:,4] = r[:,2]
    parts = np.split(np.arange(331), np.linspace(0, 331, 9).astype(int)[1:-1])
    ranks = []
    for k in combinations(range(8), 4):
        a,b = (r[np.concatenate([parts[i] for i in rows])] for rows in (k, [i for i in range(8) if i not in k]))
        sa,sb = (x.mean(axis=0)/x.std(axis=0, ddof=1) for x in (a, b))
        ranks.append(((sb<sb[sa.argmax()]-1e-12).sum() + ((abs(sb-sb[sa.argmax()])<1e-12).sum()+1)/2)/10)
    w = np.array(ranks)
    got = o.overfitting_probability(r, blocks=8)
    assert np.abs(got.logits-np.log(w/(1-w))).max()<1e-9
    assert got.probability==(w<=.5).mean()


def test_sixteen_blocks_of_a_hundred_strategies_over_ten_years_take_less_than_two_seconds():
    r,since = np.random.default_rng(0).normal(0, .01, (2500, 100)),time.process_time()
    assert len(o.overfitting_probability(r).logits)==12_870
    assert time.process_time()-since<2


def test_many_strategies_are_done_in_parts():
    r = np.random.default_rng(1).normal(0, .01, (400, 300))
    whole = o.overfitting_probability(r)
    few = o.overfitting_probability(r[:,:2])
    assert len(whole.logits)==len(few.logits)==12_870 and np.isfinite(whole.logits).all()


def test_a_trial_without_common_sessions_does_not_count():
    rng = np.random.default_rng(2)
    x = rng.normal(0, .01, (500, 8))
    elsewhere = np.full((500, 3), np.nan)
    assert o.selection(x[:,0], np.column_stack([x, elsewhere]), 252)==o.selection(x[:,0], x, 252)


def test_half_a_record_counts_as_a_trial_and_less_of_it_not_into_the_spread():
    rng = np.random.default_rng(3)
    x = rng.normal(0, .01, (500, 8))
    x[:300,0] = np.nan
    got = o.selection(x[:,1], x, 252)
    assert (got.trials, got.comparable)==(8, 7)
    s = x[:,1:].mean(axis=0)/x[:,1:].std(axis=0, ddof=1)
    assert got.luck_annual[1]==pytest.approx(o.expected_max_sharpe(8, s.var(ddof=1))*252**.5)
