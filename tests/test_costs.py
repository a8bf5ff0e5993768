"""Costs: hand numbers are in the notebook; here what holds for every model, for all shapes, and in the engine that pays them."""
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime, brentq

from quantetf.backtest.simulate import simulate
from quantetf.calendars import sessions_between
from quantetf.core import ParameterError, build
from quantetf.costs import (
    Composite,
    CostTerms,
    HalfSpread,
    PerShare,
    Proportional,
    SpreadPower,
    SpreadSteps,
    SqrtImpact,
    UnknownCost,
    known_dollar_volume,
)
from quantetf.data.view import Panel
from quantetf.orders import plan_orders
from quantetf.strategy import Execution

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get('QUANTETF_REAL_DATA') or ROOT.parent/'shared'/'data')
DAYS = sessions_between('2023-01-03', '2024-06-28')
N,EVENINGS = 6,DAYS[100::40]
FLAT = Execution(shares='fractional')


def market(seed=0, **fields):
    rng = np.random.default_rng(seed)
    tr = np.cumprod(1 + .01*rng.standard_normal((len(DAYS), N)), axis=0)*[5, 20, 50, 100, 200, 400]
    volume = np.exp(rng.normal([10, 12, 13, 14, 15, 16], .5, tr.shape)).round()
    return Panel(DAYS, [f'F{k}' for k in range(N)], dict(close=tr, tr=tr, volume=volume) | fields)


PANEL = market()
ALL = [SpreadPower(), PerShare(), SqrtImpact()]
MODELS = [Proportional(), HalfSpread(3., dict(F2=1.)), SpreadSteps(), *ALL, PerShare(minimum=0., most=None), PerShare(most=None),
    Composite(tuple(ALL)), Composite((Proportional(), SpreadPower(), SqrtImpact()))]
named = pytest.mark.parametrize('model', MODELS, ids=lambda o: type(o).__name__)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(MODELS))
def test_charges(seed, model):
    "Never negative, nothing for nothing, no smaller for more, the same sold as bought, total = sum, one session as among several"
    rng,view = np.random.default_rng(seed),PANEL.view(EVENINGS)
    terms,price = model.terms(view),view.lag('close')
    shares = rng.choice([-1, 0, 1], price.shape)*np.exp(rng.uniform(0, 12, price.shape))
    cost = terms.charge(shares, price)
    assert (cost>=0).all() and (cost[shares==0]==0).all()
    assert (terms.charge(1.5*shares, price)>=cost).all()
    np.testing.assert_array_equal(terms.charge(-shares, price), cost)
    np.testing.assert_allclose(terms.total(shares, price), cost.sum(axis=1), rtol=1e-12)
    i = int(rng.integers(len(view)))
    np.testing.assert_array_equal(terms[i].charge(shares[i], price[i]), cost[i])
    np.testing.assert_array_equal(terms[[i, 0]].charge(shares[[i, 0]], price[[i, 0]]), cost[[i, 0]])
    np.testing.assert_array_equal(model.terms(view[i]).charge(shares[i], price[i]), cost[i])
    np.testing.assert_allclose(terms[i].total(shares[i], price[i]), cost[i].sum(), rtol=1e-12)
    with pytest.raises(ParameterError, match='take one with terms'): terms.charge(shares[0], price[0])
    cols = np.argsort(rng.random(price.shape), axis=1)[:,:3]
    some = [np.take_along_axis(o, cols, axis=1) for o in (shares, price, cost)]
    np.testing.assert_array_equal(terms.at(cols).charge(*some[:2]), some[2])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(MODELS))
def test_units(seed, model):
    "A trade costs the same, however many shares are a unit: a number, one for each fund, for each session, and for chosen columns"
    rng,view = np.random.default_rng(seed),PANEL.view(EVENINGS)
    terms,price = model.terms(view),view.lag('close')
    shares = np.exp(rng.uniform(0, 10, price.shape))
    cost = terms.charge(shares, price)
    for unit in (4., rng.choice([.1, 1, 3], N), rng.choice([.1, 1, 3], price.shape)):
        np.testing.assert_allclose(terms.in_units(unit).charge(shares/unit, price*unit), cost, rtol=1e-12)
        wide = np.broadcast_to(unit, price.shape)
        one = terms.in_units(wide)[1]
        np.testing.assert_allclose(one.charge(shares[1]/wide[1], price[1]*wide[1]), cost[1], rtol=1e-12)
        cols = np.argsort(rng.random(price.shape), axis=1)[:,:3]
        x,p,u,c = (np.take_along_axis(o, cols, axis=1) for o in (shares, price, wide, cost))
        for t in (terms.in_units(wide).at(cols), terms.at(cols).in_units(u)): np.testing.assert_allclose(t.charge(x/u, p*u), c, rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(MODELS))
def test_slopes(seed, model):
    "The slope is the derivative, by scipy, and the cost is convex where the terms say so"
    rng,view = np.random.default_rng(seed),PANEL.view(EVENINGS[:1])
    terms,price = model.terms(view),view.lag('close')[0]
    n = np.exp(rng.uniform(2, 16, N))
    def cost(n): return terms.charge(n/price, price)
    for j in range(N):
        def one(x, j=j): return cost(np.where(np.arange(N)==j, x, n))[j]
        corner = [terms.slope(np.full(N, f*n[j]))[j] for f in (.999, 1.001)]
        if abs(corner[0]-corner[1])>.1*max(corner): continue # At a kink there are two slopes
        assert approx_fprime([n[j]], one, 1e-5*n[j])[0]==pytest.approx(terms.slope(n)[j], rel=1e-3, abs=1e-9)
    if terms.convex:
        m = np.exp(rng.uniform(5, 16, N))
        assert (cost((n+m)/2)<=(cost(n)+cost(m))/2*(1+1e-12)).all()
        assert (cost(m)>=(cost(n) + terms.slope(n)*(m-n))*(1-1e-9)-1e-9).all()
    else: assert isinstance(model, (PerShare, Composite))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(MODELS))
def test_orders_settle(seed, model):
    "plan_orders pays its own cost, a minimum per order included: holdings and cost make up what there was, as scipy's root finder has it"
    rng = np.random.default_rng(seed)
    view = PANEL.view(EVENINGS[:1])
    terms,price,nav = model.terms(view),view.lag('close')[0],float(np.exp(rng.uniform(np.log(1e4), np.log(1e7))))
    w,held = rng.dirichlet(np.ones(N))*(rng.random(N)<.7),rng.dirichlet(np.ones(N))*(rng.random(N)<.7)*nav/price
    trade = plan_orders(w, held, nav, price, terms, FLAT)
    def gap(x): return nav - terms.charge(w*x/price - held, price).sum() - x
    x = brentq(gap, .5*nav, nav, xtol=1e-9*nav) if gap(nav)<0 else nav
    np.testing.assert_allclose((held+trade)*price, w*x, atol=3e-8*nav)


def test_the_account_pays_what_the_terms_say():
    "Whole shares, a rebalance a month: every fill's cost is the charge of its trades"
    rows = np.arange(100, len(DAYS)-2, 21)
    target = np.random.default_rng(4).dirichlet(np.ones(N), len(rows))*.98
    for model in MODELS:
        terms = model.terms(PANEL.view(DAYS[rows]))
        a = simulate(PANEL, rows, target, terms, Execution(), int(rows[0]), len(DAYS)-1, 1e6)
        k = np.searchsorted(rows, a.fills, side='left') - 1
        assert len(a.fills)==len(rows) and a.costs.sum()>0
        np.testing.assert_allclose(a.costs, terms[k].charge(a.trades, a.price), rtol=1e-9, atol=1e-9)


def test_an_unknown_cost_is_no_free_trade():
    "A fund without volume may be looked at, and left alone; traded, it is named"
    volume = np.array(PANEL._fields['volume'])
    volume[:,1] = np.nan
    volume[:,2] = 0
    view = market(volume=volume).view(EVENINGS)
    price,shares = view.lag('close'),np.zeros((len(EVENINGS), N))
    for model in (SpreadSteps(), SpreadPower(), SqrtImpact(), Composite(tuple(ALL))):
        terms = model.terms(view)
        assert np.isnan(terms.rate[:,[1, 2]]).all() and not np.isnan(terms.rate[:,[0, 3, 4, 5]]).any()
        shares[:] = [10, 0, 0, -10, 0, 5]
        assert (terms.charge(shares, price).sum(axis=1)==terms.total(shares, price)).all()
        shares[1,[1, 2]] = 1
        for call in (terms.charge, terms.total, terms.at(np.tile([5, 2, 1], (len(EVENINGS), 1))).charge):
            x,p = (shares[:,[5, 2, 1]],price[:,[5, 2, 1]]) if call.__self__.rate.shape[1]==3 else (shares, price)
            with pytest.raises(UnknownCost, match='F1, F2 cannot be traded: no dollar volume'): call(x, p)


def test_adjusted_closes():
    "Dollar volume survives an adjustment for splits, a count of shares does not, and neither survives one for dividends"
    fine = dict(as_traded=(True, True, True), split_adjusted=(True, False, True), total_return=(False,)*3, mixed=(False,)*3)
    for basis,expected in fine.items():
        view = Panel(DAYS, PANEL.ids, dict(PANEL._fields.items()), basis=[basis]*N).view(EVENINGS)
        known = known_dollar_volume(view),PerShare().terms(view).rate,PerShare(assume_as_traded=True).terms(view).rate
        assert tuple(bool(np.isfinite(o).all()) for o in known)==expected, basis


def test_a_sum_of_flat_rates():
    "A sum of flat rates is a flat rate"
    view = PANEL.view(DAYS[70:])
    flat = Composite((Proportional(5.), HalfSpread(1.))).terms(view)
    assert type(flat) is CostTerms and np.allclose(flat.rate, 6e-4)
    spec = dict(kind='composite', parts=[dict(kind='half_spread', funds=dict(F1=2.5)), dict(kind='per_share', most=None)])
    assert build('costs', spec)==Composite((HalfSpread(funds=dict(F1=2.5)), PerShare(most=None)))
    with pytest.raises(ValueError, match='did you mean'): build('costs', dict(kind='sqrt_impct'))


@named
def test_a_flat_price_list_stays_fast(model):
    "Proportional rates keep a broadcast rate of one number"
    terms = model.terms(PANEL.view(EVENINGS))
    if isinstance(model, Proportional): assert terms.rate.strides==(0, 0) and type(terms) is CostTerms


@pytest.mark.real_data
@pytest.mark.skipif(not (SHARED/'yahoo_daily').is_dir(), reason='the folder yahoo_daily of real market data is absent')
def test_dollar_volumes_of_real_funds():
    "As pandas has them; SPY is the most liquid fund there is and pays the least"
    names = ['GLD', 'SPY', 'USO', 'XLU']
    read = {k:pd.read_csv(SHARED/'yahoo_daily'/f'{k}.csv', index_col=0, parse_dates=True)['2018':'2024-06-28'] for k in names}
    def field(c): return np.column_stack([read[k][c] for k in names]).astype(float)
    index = read['SPY'].index
    fields = dict(close=field('Close'), volume=field('Volume'), tr=field('AdjClose'))
    p = Panel(index.values.astype('M8[D]'), names, fields, basis=['split_adjusted']*4)
    view = p.view(p.sessions[[300, 900, -1]])
    usd = pd.DataFrame(field('Close')*field('Volume')).rolling(63).median().to_numpy()[[300, 900, -1]]
    np.testing.assert_allclose(known_dollar_volume(view), usd, rtol=1e-12)
    for model in (SpreadPower(least=0.), SqrtImpact()):
        cost = model.terms(view).charge(np.full((3, 4), 1e6)/view.lag('close'), view.lag('close'))
        assert (cost.argmin(axis=1)==1).all() and (cost<1e6*.002).all()
