"""Risk models against scikit-learn, pandas and golden numbers, and what no model may break. Real data where they are present."""
import importlib.util
import json
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import covariance

from quantetf.calendars import sessions_between
from quantetf.core import build, read_yaml
from quantetf.data.view import Panel
from quantetf.risk import (
    EWMA,
    OAS,
    LedoitWolf,
    PrincipalComponents,
    Sample,
    betas,
    bias_statistic,
    forecast_quality,
    ledoit_wolf,
    oas,
    psd_repaired,
    qlike,
)

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get('QUANTETF_REAL_DATA') or ROOT.parent/'shared'/'data')
DAYS = sessions_between('2021-01-04', '2024-06-28')
MODELS = [Sample(120, .5), Sample(120, .3, 'pairwise'), EWMA(40, 120, .5), EWMA(40, 120, .3, 'pairwise'), LedoitWolf(120, .5), OAS(120, .5),
    LedoitWolf(120, .5, 'correlation'), PrincipalComponents(2, 120, .5), PrincipalComponents(2, 120, .3, 'pairwise')]


def market(seed, K=8, gaps=0., scale=None):
    "A view of correlated returns, with lost closes"
    rng = np.random.default_rng(seed)
    r = .01*np.linspace(.3, 2, K)*(.6*rng.standard_normal((200, 1)) + .8*rng.standard_normal((200, K)))
    tr = np.cumprod(1 + r*(1 if scale is None else scale), axis=0)
    tr[rng.random(tr.shape)<gaps] = np.nan
    return Panel(DAYS[:200], [f'F{k:02d}' for k in range(K)], dict(close=tr, tr=tr)).view(DAYS[199])


def dataset():
    "The prices behind the golden shrinkage: they come with skfolio, in this environment or in that of the peers"
    inside = [Path(o) for o in getattr(importlib.util.find_spec('skfolio'), 'submodule_search_locations', None) or []]
    found = [*inside, *ROOT.glob('.peers/lib/python*/site-packages/skfolio')]
    return next((o/'datasets'/'data'/'sp500_dataset.csv.gz' for o in found), None)


def test_shrinkage_is_golden():
    golden,file = SHARED.parent/'golden'/'golden.json',dataset()
    if not golden.is_file(): pytest.skip('golden.json is absent')
    if file is None: pytest.skip('the data set of skfolio is absent: neither here nor in .peers')
    r = pd.read_csv(file, index_col=0, parse_dates=True)['2014-01-01':].pct_change().dropna().to_numpy()
    want = json.loads(golden.read_text())['shrinkage']
    assert r.shape==(2263, 20)
    assert ledoit_wolf(r)[1]==pytest.approx(want['ledoit_wolf'], rel=1e-10)
    assert oas(r)[1]==pytest.approx(want['oas'], rel=1e-10)


@pytest.mark.parametrize('T,K', [(252, 20), (60, 60), (30, 190), (500, 3), (40, 1)])
def test_shrinkage_is_that_of_scikit_learn(T, K):
    rng = np.random.default_rng(T)
    for r in (.01*rng.standard_normal((T, K)), .01*rng.standard_t(3, (T, K)) + .01*rng.standard_normal((T, 1))):
        for ours,theirs in ((ledoit_wolf, covariance.ledoit_wolf), (oas, covariance.oas)):
            np.testing.assert_allclose(ours(r)[0], theirs(r)[0], rtol=1e-10, atol=1e-18)
            if K>1: assert ours(r)[1]==pytest.approx(theirs(r)[1], rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(MODELS), st.sampled_from([0., .02, .1]))
def test_what_no_model_may_break(seed, model, gaps):
    "Positive semidefinite, symmetric, blind to the order of funds, and twice the returns have twice the volatility"
    view = market(seed, gaps=gaps if getattr(model, 'missing', '')=='pairwise' or gaps<.1 else 0.)
    risk = model.estimate(view, view.ids)
    size = np.linalg.eigvalsh(risk.cov_annual)
    assert size[0]>=-1e-12*size[-1] and (risk.cov_annual==risk.cov_annual.T).all()
    order = np.random.default_rng(seed).permutation(len(view.ids))
    again = model.estimate(view, view.ids[order])
    np.testing.assert_allclose(again.cov_annual, risk.cov_annual[np.ix_(order, order)], atol=1e-12)
    some = view.ids[:5]
    if isinstance(model, (Sample, EWMA)) and not gaps:
        np.testing.assert_allclose(model.estimate(view, some).cov_annual, risk.cov_annual[:5,:5], rtol=1e-12)
    w = np.random.default_rng(seed).dirichlet(np.ones(8))
    assert risk.contributions(w).sum()==pytest.approx(risk.vol(w), rel=1e-12)
    assert 1-1e-9<=risk.effective_bets(w)<=8+1e-9 and risk.effective_positions(w)<=8+1e-9


@pytest.mark.parametrize('model', [PrincipalComponents(2, 120), LedoitWolf(120, shrink='correlation'), OAS(120, shrink='correlation')])
def test_leverage_of_one_fund_changes_that_fund(model):
    "In units of volatility nothing depends on units"
    scale = np.array([1, 1, 3, 1, 1, 1, 1, 1.])
    a,b = (model.estimate(o, o.ids).cov_annual for o in (market(1), market(1, scale=scale)))
    np.testing.assert_allclose(b, a*np.outer(scale, scale), rtol=1e-9)


def test_a_factor_model_finds_the_factor():
    "Forty funds of one factor: with a quarter of a year the factor model is nearer to the truth than the sample"
    rng = np.random.default_rng(3)
    truth = .01**2*252*(.36 + .64*np.eye(40))
    def away(model):
        far = []
        for _ in range(10):
            tr = np.cumprod(1 + .01*(.6*rng.standard_normal((127, 1)) + .8*rng.standard_normal((127, 40))), axis=0)
            v = Panel(DAYS[:127], [f'F{k:02d}' for k in range(40)], dict(close=tr, tr=tr)).view(DAYS[126])
            far.append(np.linalg.norm(model.estimate(v, v.ids).cov_annual-truth))
        return np.mean(far)
    assert away(PrincipalComponents(1, 126))<.85*away(Sample(126))


def test_a_fund_that_does_not_move():
    "No volatility, no correlation, no NaN"
    tr = np.cumprod(1 + .01*np.random.default_rng(0).standard_normal((130, 3)), axis=0)
    tr[:,1] = 1
    v = Panel(DAYS[:130], ['A', 'B', 'C'], dict(close=tr, tr=tr)).view(DAYS[129])
    for o in MODELS:
        cov = o.estimate(v, v.ids).cov_annual
        assert np.isfinite(cov).all() and cov[0,1]==0, o
        if not (hasattr(o, 'shrink') and o.shrink=='covariance'): assert cov[1,1]==0, o
    with pytest.raises(ValueError, match='B has not moved'): betas(v, ['A'], 'B', 120)


def test_repair_leaves_variances_alone():
    view = market(7, K=20, gaps=.3)
    r = view.window('tr', 61)[0]
    cov = pd.DataFrame(r[1:]/r[:-1] - 1).cov(min_periods=5).to_numpy()
    assert np.linalg.eigvalsh(cov)[0]<0
    good = psd_repaired(cov)
    np.testing.assert_allclose(np.diag(good), np.diag(cov), rtol=1e-12)
    assert np.linalg.eigvalsh(good)[0]>=-1e-12*np.linalg.eigvalsh(good)[-1]


def test_from_a_strategy_file():
    assert build('risk', dict(kind='pca', factors=2, missing='pairwise'))==PrincipalComponents(2, missing='pairwise')
    with pytest.raises(ValueError, match='unknown key'): build('risk', dict(kind='ledoit_wolf', missing='pairwise'))


def test_lean():
    "An optimiser asks for hundreds: at most 0.3 ms for 20 funds over a year; the best of many, since others use the machine too"
    tr = np.cumprod(1 + .01*np.random.default_rng(0).standard_normal((260, 33)), axis=0)
    v = Panel(DAYS[:260], [f'F{k:02d}' for k in range(33)], dict(close=tr, tr=tr)).view(DAYS[259])
    cols,best = v.ids[:20],{}
    for o in (LedoitWolf(), OAS(), Sample(), EWMA()):
        for _ in range(60):
            t = time.perf_counter()
            o.estimate(v, cols)
            best[o] = min(best.get(o, 1), time.perf_counter()-t)
    assert max(best.values())<3e-4, best


@pytest.mark.real_data
@pytest.mark.skipif(not (SHARED/'yahoo_daily').is_dir(), reason='the folder yahoo_daily of real market data is absent')
def test_forecasts_on_real_funds():
    "Twenty funds, 2007 to 2024, months ahead: what the notebook says about them"
    core = sorted(read_yaml(ROOT/'configs'/'universes'/'core20.yaml')['tickers'])
    read = {k:pd.read_csv(SHARED/'yahoo_daily'/f'{k}.csv', index_col=0, parse_dates=True).AdjClose for k in core}
    tr = pd.DataFrame(read)['2006-06-01':'2024-06-28']
    panel = Panel(tr.index.values.astype('M8[D]'), core, dict(close=tr.to_numpy(), tr=tr.to_numpy()))
    months = panel.sessions[300:-21:21]
    def safest(risk): w = np.linalg.solve(risk.cov_annual, np.ones(len(core))); return w/w.sum()
    models = dict(sample=Sample(), ewma=EWMA(63), plain=LedoitWolf(), own=LedoitWolf(shrink='correlation'))
    found = {k:forecast_quality(o, panel, months, core, safest) for k,o in models.items()}
    vol = {k:100*(12*f.realised.mean())**.5 for k,f in found.items()}
    loss = {k:qlike(f.realised, f.forecast) for k,f in found.items()}
    assert vol==pytest.approx(dict(sample=1.139, ewma=1.190, plain=2.526, own=1.087), abs=2e-3)
    assert min(vol, key=vol.get)==min(loss, key=loss.get)=='own'
    equal = {k:forecast_quality(o, panel, months, core) for k,o in models.items()}
    bias = {k:bias_statistic(f['return'], f.forecast**.5) for k,f in equal.items()}
    assert all(1.2<b<1.3 for b in bias.values()) and qlike(equal['ewma'].realised, equal['ewma'].forecast)<.92*qlike(
        equal['sample'].realised, equal['sample'].forecast)
    spy = panel.view('2024-06-28')
    r = tr.pct_change().iloc[-252:]
    np.testing.assert_allclose(betas(spy, core, 'SPY'), r.cov()['SPY']/r.SPY.var(), rtol=1e-9)
    np.testing.assert_allclose(Sample().estimate(spy, core).cov_annual, 252*r.cov(), rtol=1e-9)
