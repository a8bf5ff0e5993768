"""A tear sheet against QuantStats and empyrical, signals against alphalens, and the length of bootstrap blocks against arch.

They run in `.peers` (`make peers`), in one process; without it their comparisons are skipped, with the reason.
"""
import os
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from quantetf import metrics
from quantetf.backtest.engine import backtest
from quantetf.calendars import sessions_between
from quantetf.data.check import sample_panel
from quantetf.evaluation import signals, tearsheet
from quantetf.strategy import make_strategy

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT/'.peers'
peers = pytest.mark.skipif(not (PEERS/'.ready').exists(), reason='the environment .peers is absent: make peers')


def records():
    "Name -> (returns, benchmark, days)"
    days,rng = sessions_between('2008-01-02', '2014-12-31'),np.random.default_rng(4)
    b = .0003+.011*rng.standard_t(4, len(days))/2**.5
    first_falls = np.append(-.04, rng.normal(.0002, .01, len(days)-1))
    return dict(mixed=(.0001+.7*b+.005*rng.normal(size=len(days)), b, days), falls=(first_falls, b, days))


def signal():
    "Scores at the fills, prices and days: every 21 sessions, 20 funds, scores that know something, and some that are missing"
    days,rng = sessions_between('2010-01-04', '2013-12-31'),np.random.default_rng(7)
    prices = 100*np.exp(np.cumsum(rng.normal(.0002, .01, (len(days), 20)), axis=0))
    fills = np.arange(20, len(days)-22, 21)
    scores = .2*np.log(prices[fills+21]/prices[fills]) + rng.normal(0, .05, (len(fills), 20))
    scores[5,3] = scores[8,:4] = np.nan
    return dict(scores=scores, prices=prices, fills=fills, days=days.astype('i8'))


@pytest.fixture(scope='module')
def told(tmp_path_factory):
    folder = tmp_path_factory.mktemp('evaluation')
    ask = {f'{n}|{k}':v for n,o in records().items() for k,v in zip(('returns', 'benchmark', 'days'), (*o[:2], o[2].astype('i8')))}
    np.savez(folder/'questions.npz', **ask | {f'signal|{k}':v for k,v in signal().items()})
    subprocess.run([PEERS/'bin'/'python', ROOT/'tests'/'peer_evaluation.py', folder/'questions.npz', folder/'answers.npz'], check=True,
        env=os.environ | dict(OPENBLAS_NUM_THREADS='1'), timeout=300, cwd=folder)
    with np.load(folder/'answers.npz') as f: return {k:f[k][()] for k in f.files}


def close(a, b, rtol=1e-9): np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-12)


def nav_of(r, days): return pd.Series(np.cumprod(np.append(1, 1+r)), pd.DatetimeIndex(np.append(days[0]-1, days).astype('M8[ns]')))


@peers
@pytest.mark.parametrize('name', records())
def test_figures_of_quantstats(told, name):
    r,b,days = records()[name]
    theirs = {k.split('|')[2]:v for k,v in told.items() if k.startswith(f'{name}|quantstats|')}
    nav = nav_of(r, days)
    for k in ('annual_return', 'annual_volatility', 'sharpe', 'sortino', 'calmar'): close(getattr(metrics, k)(r, 252), theirs[k])
    close(metrics.max_drawdown(r), theirs['max_drawdown'])
    close(metrics.beta(r, b), theirs['beta'])
    close(metrics.drawdowns(nav).depth, theirs['falls'], 1e-6)
    moving = tearsheet.rolling(r, b)
    close(moving['annual_volatility'], theirs['rolling_volatility'])
    close(moving['sharpe'], theirs['rolling_sharpe'])


@peers
@pytest.mark.parametrize('name', records())
def test_where_quantstats_has_other_conventions(told, name):
    "T-1 in the ulcer index, a normal distribution for value at risk, per session, arithmetic alpha, moments of small samples"
    r,b,days = records()[name]
    theirs = {k.split('|')[2]:v for k,v in told.items() if k.startswith(f'{name}|quantstats|')}
    n = len(r)
    close(tearsheet.ulcer_index(nav_of(r, days))*((n+1)/(n-1))**.5, theirs['ulcer'])
    close(norm.ppf(.05, r.mean(), r.std(ddof=1)), theirs['value_at_risk'])
    assert abs(metrics.value_at_risk(r)/theirs['value_at_risk']-1)>.005
    close(metrics.information_ratio(r, b, 252), 252**.5*theirs['information_ratio'])
    close(metrics.alpha(r, b, 252), (1+theirs['alpha']/252)**252-1)
    close(metrics.skew(r)*(n*(n-1))**.5/(n-2), theirs['skew'])
    close(((n+1)*(metrics.kurtosis(r)-3)+6)*(n-1)/((n-2)*(n-3)), theirs['kurtosis'])


@peers
@pytest.mark.parametrize('name', records())
def test_figures_of_empyrical(told, name):
    r,b,_ = records()[name]
    theirs = {k.split('|')[2]:v for k,v in told.items() if k.startswith(f'{name}|empyrical|')}
    moving = tearsheet.rolling(r, b)
    close(moving['beta'][251:], theirs['rolling_beta'])
    close(moving['sharpe'][251:], theirs['rolling_sharpe'])
    close(moving['annual_volatility'][251:], theirs['rolling_volatility'])
    close(metrics.tracking_error(r, b, 252), theirs['tracking_error'])
    close(metrics.expected_shortfall(r), theirs['tail'])


@peers
@pytest.mark.parametrize('name', records())
def test_capture_ratios_of_empyrical_annualise_before_they_divide(told, name):
    theirs = {k.split('|')[2]:v for k,v in told.items() if k.startswith(f'{name}|empyrical|')}
    r,b = theirs['months'],theirs['benchmark_months']
    mine = tearsheet.capture_ratios(r, b)
    for side,which in (('up', b>0), ('down', b<0)):
        g,h = (np.exp(np.log1p(o[which]).mean())-1 for o in (r, b))
        close(mine[f'{side}_capture'], g/h)
        close(theirs[side], ((1+g)**12-1)/((1+h)**12-1))


@peers
@pytest.mark.parametrize('h', (5, 21))
def test_signal_analysis_is_that_of_alphalens(told, h):
    s = signal()
    after = signals.forward_returns(s['prices'], s['fills'], s['fills']+h)
    part = signals.quantiles(s['scores'], 5)
    theirs = {k.split('|')[2]:v for k,v in told.items() if k.startswith('signal|alphalens|')}
    close(signals.rank_correlations(s['scores'], after), theirs[f'coefficient{h}'])
    close(signals.quantile_returns(part, after, 5), theirs[f'returns{h}'])
    close(signals.signal_turnover(part, 5), theirs['turnover'])
    whole = np.isfinite(s['scores']).all(axis=1)
    whole = whole[1:] & whole[:-1] # Elsewhere theirs are ranks among all funds of a date, ours among those of both
    close(signals.rank_correlations(s['scores'][1:], s['scores'][:-1])[whole], theirs['near'][1:][whole])


@pytest.mark.parametrize('seed', range(6))
def test_block_length_is_that_of_arch(seed):
    arch = pytest.importorskip('arch.bootstrap')
    rng = np.random.default_rng(seed)
    e = rng.normal(size=(900, 2500)[seed%2])
    x = e if seed<2 else np.convolve(e, [1, .8, .4], 'valid') if seed<4 else np.repeat(rng.uniform(.3, 2, len(e)//50), 50)*e
    both = [max(float(arch.optimal_block_length(o).stationary.iloc[0]), 1.) for o in (x, (x-x.mean())**2)]
    assert metrics.block_length(x)==pytest.approx(max(both), rel=1e-9)


def test_bootstrap_intervals_contain_the_truth_as_often_as_they_say():
    "Mean of a hundred histories with a known one, whose returns depend on those before them"
    hits = 0
    for seed in range(100):
        e = np.random.default_rng(seed).normal(size=1001)
        r = .001 + .01*(e[1:]+.5*e[:-1])
        found = metrics.bootstrap_interval(np.mean, r, draws=200)
        hits += found.low<=.001<=found.high
    assert 80<=hits<=97


def test_a_record_too_short_for_intervals_has_none_and_everything_else():
    panel = sample_panel()
    s = make_strategy(dict(universe=dict(kind='static', tickers=panel.ids.tolist()),
        features=dict(mom=dict(kind='momentum', lookback=60, skip=0)), alpha=dict(kind='rank', feature='mom'),
        portfolio=dict(kind='top_n_equal', n=3)), 'three')
    sheet = tearsheet.tear_sheet(backtest(s, panel, '2023-03-01', '2023-03-31'))
    assert sheet.intervals=={} and sheet.rolling['sharpe'].isna().all() and sheet.hit_rates['years']==0
    assert sheet.figures['relative'] is None and '<table' in sheet._repr_html_()
    assert sheet.as_dict()['hit_rates']['years_up'] is None
