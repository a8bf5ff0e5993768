"""Blind choice, planted skill and perfect foresight: answers that are known beforehand."""
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest, norm

from quantetf.backtest.engine import backtest
from quantetf.backtest.simulate import Ledger, simulate
from quantetf.calendars import Monthly, sessions_between
from quantetf.constraints import Constraints
from quantetf.core import LookaheadError, ParameterError
from quantetf.costs import Composite, CostTerms, PerShare, Proportional
from quantetf.data.check import _sample_as_panel, sample_panel
from quantetf.data.view import Panel
from quantetf.evaluation import feasibility as F
from quantetf.evaluation.accounts import aligned, random_picks, slots_of, walk
from quantetf.strategy import Execution, make_strategy


def dense(picks, weights, N):
    "(R, m) picks and weights as (R, N) weights"
    out = np.zeros((len(picks), N+1))
    np.put_along_axis(out, picks.astype(int), weights, axis=1)
    return out[:,:N]


def blemished(odd_split):
    "The sample market; with `odd_split` three new shares for two, which leaves fractions"
    panel = sample_panel(5)
    if not odd_split: return panel
    split = np.where(panel._fields['split']==3, 1.5, 1.)
    split[180,0] = 1/3 # And a reverse split
    closed = panel._events.closed
    return _sample_as_panel(panel.sessions, panel.ids.tolist(), panel._fields['close'], panel._fields['cash'], split, closed)


COSTS = Proportional(10), Composite((Proportional(5), PerShare(.005, 1.)))
SETTINGS = [o for o in product(['next_close', 'next_open', 'same_close'], ['at_decision', 'at_fill'], ['whole', 'fractional'], [1, 10],
    [0., 500.], [0., .03]) if not (o[3]>1 and o[2]=='fractional')]


@pytest.mark.parametrize('case', range(0, len(SETTINGS), 5))
@pytest.mark.parametrize('odd_split', [False, True])
def test_many_accounts_are_those_of_the_engine(case, odd_split):
    fill,sizing,shares,lot,least,band = SETTINGS[case]
    panel,rules,N = blemished(odd_split),Execution(fill, sizing, shares, least, lot, band),8
    rows = panel.view(Monthly().dates(panel.sessions[0], panel.sessions[-10], 'XNYS'))._rows
    close,R,end = panel._fields['close'],len(rows),len(panel.sessions)-1
    there = ~np.isnan(close[rows]) & ~np.isnan(close[rows+rules.lag])
    shape = slots_of(np.where(np.arange(N)==(np.arange(R)//2 % 4)[:,None], .5, 0) + np.where(np.arange(N)>5, .22, 0))
    picks,limits = random_picks(shape, there, 60, np.random.default_rng(case)),Constraints(cash_buffer=.02)
    terms = COSTS[case%2].terms(panel.view(panel.sessions[rows]))
    many = walk(panel, rows, picks, shape.weights, terms, rules, 3, end, 50_000., limits, at=np.arange(3, end+1))
    clean = np.flatnonzero(many.gaps==0)[:3]
    assert len(clean)==3
    for i in clean:
        one = simulate(panel, rows, dense(picks[:,i], shape.weights, N), terms, rules, 3, end, 50_000., limits=limits)
        assert np.abs(many.nav[:,i]/one.nav-1).max()<1e-9
        assert abs(many.costs[i]-one.costs.sum())<1e-6
    only = walk(panel, rows, picks, shape.weights, terms, rules, 3, end, 50_000., limits)
    assert np.allclose(only.end, many.end, rtol=1e-13, atol=0)


def test_random_portfolios_exchange_what_the_strategy_exchanges_and_hold_only_members():
    rng = np.random.default_rng(2)
    R,N,n = 40,12,4
    weights = np.zeros((R, N))
    held = list(range(n))
    for k in range(R):
        if k and rng.random()<.6: held[rng.integers(n)] = rng.choice(np.setdiff1d(np.arange(N), held))
        weights[k,held] = .25
    shape,can = slots_of(weights),np.ones((R, N), bool)
    picks = random_picks(shape, can, 3000, rng)
    assert (np.sort(picks, axis=2)[:,:,1:]!=np.sort(picks, axis=2)[:,:,:-1]).all(), 'a fund twice in one portfolio'
    changed = np.stack([[len(set(a)-set(b)) for a,b in zip(picks[k,:50], picks[k-1,:50])] for k in range(1, R)])
    assert (changed==shape.fresh[1:].sum(axis=1)[:,None]).all()
    often = np.stack([np.bincount(p.ravel(), minlength=N) for p in picks])/3000
    assert np.abs(often-n/N).max()<4.5*np.sqrt(n/N*(1-n/N)/3000)
    can[10:,3] = False # A fund leaves the universe
    picks = random_picks(shape, can, 500, rng)
    assert (picks[:10]==3).any() and not (picks[10:]==3).any()


def test_a_fund_that_stays_keeps_its_place():
    rng = np.random.default_rng(4)
    picks = np.stack([[rng.permutation(9)[:4] for _ in range(30)] for _ in range(12)])
    weights = rng.random(picks.shape)
    moved,w = aligned(picks, weights, 9)
    for k,i in product(range(12), range(30)):
        assert dict(zip(moved[k,i].tolist(), w[k,i].tolist()))==dict(zip(picks[k,i].tolist(), weights[k,i].tolist()))
        if k:
            for c in set(moved[k,i]) & set(moved[k-1,i]): assert list(moved[k,i]).index(c)==list(moved[k-1,i]).index(c)


def market(seed=0, funds=10, sessions=800, common=.6, calm=False):
    "With `calm`, the funds that move less earn less, so that it matters how one weighs them"
    rng,days = np.random.default_rng(seed),sessions_between('2012-01-03', '2024-12-31')[:sessions]
    steps = common*rng.standard_normal((len(days), 1)) + np.sqrt(1-common**2)*rng.standard_normal((len(days), funds))
    each = np.linspace(.3, 1.7, funds) if calm else 1.
    close = 50*np.exp(np.cumsum(.0005*each + .01*each*steps, axis=0))
    return Panel(days, [f'F{j:02}' for j in range(funds)], dict(close=close, tr=close), basis=['total_return']*funds)


def noise_weights(rng, R, N, n, phi):
    x,out = rng.standard_normal((R, N)),np.zeros((R, N))
    for k in range(1, R): x[k] = phi*x[k-1] + np.sqrt(1-phi*phi)*x[k]
    np.put_along_axis(out, np.argsort(-x, axis=1)[:,:n], 1/n, axis=1)
    return out


def test_noise_is_as_likely_at_the_top_of_random_portfolios_as_at_the_bottom():
    panel,rules,places = market(1),Execution(shares='fractional'),[]
    rows = panel.view(Monthly().dates(panel.sessions[0], panel.sessions[-5], 'XNYS'))._rows
    terms,end = Proportional(10).terms(panel.view(panel.sessions[rows])),len(panel.sessions)-1
    for seed in range(120):
        rng = np.random.default_rng(seed)
        shape = slots_of(noise_weights(rng, len(rows), 10, 3, .8))
        picks = random_picks(shape, np.ones((len(rows), 10), bool), 199, rng)
        both = np.concatenate([shape.cols[:,None], picks], axis=1)
        nav = walk(panel, rows, both, shape.weights, terms, rules, 0, end, 1e5).end
        places.append((1+(nav[1:]<nav[0]).sum())/201)
    assert kstest(places, 'uniform').pvalue>.05
    assert abs(np.mean(places)-.5)<3/np.sqrt(12*120)


@pytest.mark.parametrize('ic,dates,breadth', [(0., 60, 8), (.06, 120, 20), (.15, 36, 12), (.5, 60, 5)])
def test_a_planted_ic_is_recovered_without_bias_and_with_the_stated_power(ic, dates, breadth):
    rng = np.random.default_rng([dates, breadth])
    returns,can,means = rng.standard_normal((dates, breadth)),np.ones((dates, breadth), bool),[]
    for seed in range(200):
        s = F.planted(returns, can, np.random.default_rng([seed, 7]), .9).scores(ic)
        means.append(F.rank_ic(s, returns).mean())
    means = np.array(means)
    assert abs(means.mean()-ic)<3*means.std(ddof=1)/np.sqrt(200)
    error = F.ic_error(dates, breadth)
    found,power = (means/error>norm.isf(.05)).mean(),float(F.ic_power(ic, error))
    assert abs(found-power)<3*np.sqrt(max(power*(1-power), .01)/200)+.02*(ic>.3)


def test_perfect_and_opposite_skill_are_exact():
    rng = np.random.default_rng(0)
    returns,can = rng.standard_normal((30, 9)),rng.random((30, 9))>.2
    p = F.planted(returns, can, rng)
    assert np.allclose(F.rank_ic(p.scores(1.), returns), 1) and np.allclose(F.rank_ic(p.scores(-1.), returns), -1)
    assert np.isnan(p.scores(.5)[~can]).all()


def config(**more):
    features = dict(mom=dict(kind='momentum', lookback=60, skip=0))
    return dict(universe=dict(kind='all'), features=features, alpha=dict(kind='rank', feature='mom'),
        portfolio=dict(kind='top_n_equal', n=3), benchmark='F00', execution=dict(shares='fractional')) | more


def choice_of(panel, **more): return F.choices(backtest(make_strategy(config(**more), 'test'), panel))


def small_case(growth):
    "Three funds, four decisions, cash that earns interest; funds grow by `growth` a session, more or less"
    rng,days = np.random.default_rng(3),sessions_between('2024-01-02', '2024-12-31')[:50]
    close = 50*np.exp(np.cumsum(growth + .003*rng.random((50, 3)), axis=0))
    panel = Panel(days, ['A', 'B', 'C'], dict(close=close, tr=close), basis=['total_return']*3, rate=np.full(50, .08))
    one = dict(benchmark='A', portfolio=dict(kind='top_n_equal', n=1, constraints=dict(cash_buffer=.05)),
        features=dict(mom=dict(kind='momentum', lookback=8, skip=0)), costs=dict(kind='proportional', bps=0),
        schedule=dict(kind='explicit', on=[str(days[o]) for o in (10, 20, 30, 40)]))
    return F.choices(backtest(make_strategy(config(**one), 'test'), panel))


def test_the_bound_is_the_best_of_all_plans():
    "Every plan of a small case, through the engine; all funds rise, so that nobody wants cash"
    c = small_case(.004)
    terms,ends,limit = CostTerms(np.zeros((4, 3))),[],.95 # With a buffer, since an account cannot pay for a gap with money it has not
    for plan in product(range(3), repeat=4):
        ends.append(simulate(c.result.panel, c.rows, limit*np.eye(3)[list(plan)], terms, c.rules, c.rows[0], 49, 1e5).nav[-1])
    assert abs(F.bound(c).value/max(ends)-1)<1e-12
    assert F.oracle(c).nav[-1]<=max(ends)*(1+1e-12)


def test_the_bound_of_a_falling_market_is_what_cash_earns():
    c = small_case(-.02)
    index = c.ledger.index
    assert np.isclose(F.bound(c).value, 1e5*index[49]/index[c.rows[0]], rtol=1e-12) and F.bound(c).value>1e5>F.oracle(c).nav[-1]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), fill=st.sampled_from(['next_close', 'next_open', 'same_close']),
    sizing=st.sampled_from(['at_decision', 'at_fill']), shares=st.sampled_from(['whole', 'fractional']),
    bps=st.sampled_from([0, 10]), portfolio=st.sampled_from([
        dict(kind='top_n_equal', n=2), dict(kind='top_n_equal', n=3, constraints=dict(cash_buffer=.05)),
        dict(kind='inverse_volatility', n=3, constraints=dict(max_weight=.5)), dict(kind='top_n_equal', n=2, buffer=2),
        dict(kind='top_n_equal', n=2, constraints=dict(max_turnover=.3))]))
def test_no_account_passes_the_bound(seed, fill, sizing, shares, bps, portfolio):
    "Random choices, and the greedy oracle, on the sample market: dividends, interest, a split, a fund that closes"
    panel,rng = whole_sample(),np.random.default_rng(seed)
    features = dict(mom=dict(kind='momentum', lookback=60, skip=0), vol=dict(kind='volatility', window=40))
    strategy = make_strategy(config(benchmark='CORE', portfolio=portfolio, execution=dict(fill=fill, sizing=sizing, shares=shares),
        costs=dict(kind='proportional', bps=bps), features=features), 'test')
    c = F.choices(backtest(strategy, panel))
    top = F.bound(c).value*(1+1e-8)
    accounts = [c.result, F.oracle(c)]
    scores = rng.standard_normal(c.can.shape)
    w = F._by_rule(c, scores)
    nav = simulate(panel, c.rows, w, c.terms, c.rules, c.result.account.start, c.result.account.end, 1e5, limits=c.limits).nav
    assert max(nav[-1], *(o.nav[-1] for o in accounts))<=top


def whole_sample():
    "The sample market with the close before in place of a missing one, so that every order is filled on its day"
    panel = sample_panel(5)
    close = panel._fields['close'].copy()
    for t in range(1, len(close)):
        lost = np.isnan(close[t]) & ~np.isnan(close[t-1]) & (t<=panel._events.closed)
        close[t,lost] = close[t-1,lost]/panel._fields['split'][t,lost]
    return _sample_as_panel(panel.sessions, panel.ids.tolist(), close, panel._fields['cash'], panel._fields['split'], panel._events.closed)


@pytest.mark.parametrize('portfolio', [dict(kind='top_n_equal', n=3), dict(kind='inverse_volatility', n=3, feature='vol')])
def test_the_ladder_stands_on_blind_choice_and_ends_at_the_oracle(portfolio):
    features = dict(mom=dict(kind='momentum', lookback=60, skip=0), vol=dict(kind='volatility', window=40))
    panel = market(4, sessions=1500, calm=True)
    c = choice_of(panel, portfolio=portfolio, features=features, execution=dict(shares='whole'))
    steps,chance = F.ladder(c, 100, rungs=(0., 1.)),F.annual(c, F.blind(c, 4000).end)
    assert abs(steps.mean[0]-chance.mean())<3*np.hypot(steps.error[0], chance.std()/np.sqrt(len(chance)))
    assert abs(steps.mean[1]-F.annual(c, F.oracle(c).nav[-1]))<1e-9 and np.ptp(steps.annual[1])<1e-12


def test_a_rule_that_does_not_look_at_scores_has_nothing_to_attain():
    panel = market(2, sessions=300)
    strategy = make_strategy(config(portfolio=dict(kind='minimum_variance'), risk=dict(kind='sample', window=60)), 'test')
    found = F.feasibility(strategy, panel, portfolios=100, draws=2)
    assert found.annual['attainable'] is found.annual['worst'] is found.capture is found.ladder is None
    assert any('does not look at scores' in o for o in found.notes) and found.annual['bound']>found.annual['strategy']


def test_break_even_and_its_ends():
    steps = F.Ladder(np.array([0., .1, .2]), np.array([[.01, .03], [.04, .06], [.07, .09]]), np.zeros((3, 2)), 0.)
    assert np.isclose(steps.reaches(.035)[0], .05) and steps.reaches(.02)[0]==0. and steps.reaches(.01)[0]==0.
    assert steps.reaches(.2)==(None, None, None)


def test_foresight_is_refused_by_production(data, tmp_path):
    from quantetf.core import find_settings
    from quantetf.data.snapshot import open_snapshot
    from quantetf.data.view import load_panel
    from quantetf.production.proposal import propose
    from quantetf.strategy import load_strategy
    s = replace(find_settings(environ={}), data=data, runs=tmp_path/'runs')
    snapshot = open_snapshot('demo', s)
    c = F.choices(backtest(load_strategy('demo_momentum', s), load_panel(snapshot), '2020-01-01'))
    seer = replace(c.result.strategy, alpha=F.Foresight(c))
    with pytest.raises(LookaheadError, match='future'): propose(seer, snapshot, '2024-06-28')


def test_what_cannot_be_compared_is_said():
    panel = market(2)
    with pytest.raises(ParameterError, match='without deposits'):
        F.choices(backtest(make_strategy(config(), 't'), panel, flows=[(str(panel.sessions[-3]), 1000.)]))
    c = choice_of(panel, portfolio=dict(kind='minimum_variance'), risk=dict(kind='sample', window=60))
    with pytest.raises(ParameterError, match='no ladder'): F.ladder(c, 2)


def test_fill_returns_count_what_a_holder_gets():
    panel = sample_panel(5)
    L = Ledger(panel, Execution())
    fills = np.arange(60, 600, 45)
    r,close = F.fill_returns(L, fills, len(panel.sessions)-1),panel._fields['close']
    core = panel.ids.tolist().index('CORE')
    for k in range(len(fills)-1):
        a,b = fills[k],fills[k+1]
        if np.isnan(close[[a, b],core]).any(): continue
        paid = panel._fields['cash'][a+1:b+1,core].sum()
        assert np.isclose(r[k,core], (close[b,core]+paid)/close[a,core]-1, rtol=1e-12)
    gone = panel.ids.tolist().index('GONE')
    k = np.searchsorted(fills, 520) - 1
    assert np.isclose(r[k,gone], L.last(520)[gone]/close[fills[k],gone]-1) and np.isnan(r[k+1,gone])
