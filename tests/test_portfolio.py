"""Optimisers against known numbers, against others, and against what every portfolio has to satisfy.

Stated tolerances: weights within 1e-4 of the other solver's, its objective never better than ours by more than 1e-8 of it. Real
covariances are Ledoit-Wolf's over 252 sessions of twenty funds; without the real data those of random returns are used. PyPortfolioOpt
and skfolio run in `.peers` (`make peers`), and are skipped, with the reason, where it is absent.
"""
import json
import os
import subprocess
from functools import cache
from pathlib import Path

import fastcore
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import linkage
from scipy.optimize import minimize
from sklearn.covariance import ledoit_wolf

from quantetf.backtest.engine import backtest
from quantetf.constraints import Constraints, GroupLimit, Limits, check_weights
from quantetf.core import ConfigError, read_yaml
from quantetf.costs import Proportional
from quantetf.data.check import check_component, sample_panel
from quantetf.data.view import Fact, Panel
from quantetf.optimise import HRP, MeanVariance, MinimumVariance, RiskParity, hrp_order, hrp_weights, risk_budget_weights
from quantetf.overlays import DrawdownControl, TrendGate, VolatilityTarget
from quantetf.portfolio import InverseVolatility, ScoreProportional, Signals, TopNEqual
from quantetf.risk import Risk
from quantetf.strategy import Book, make_strategy
from quantetf.universe import Universe

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get('QUANTETF_REAL_DATA') or ROOT.parent/'shared'/'data')
GOLDEN = SHARED.parent/'golden'/'golden.json'
CORE = read_yaml(ROOT/'configs'/'universes'/'core20.yaml')['tickers']
SOURCES = ['random', pytest.param('real', marks=[pytest.mark.real_data,
    pytest.mark.skipif(not (SHARED/'yahoo_daily').is_dir(), reason='the folder yahoo_daily of real market data is absent')])]


class Given:
    "A risk model that is told what to say"
    def __init__(self, ids, cov): self.ids,self.cov = np.array(ids),cov
    def estimate(self, view, columns):
        k = np.searchsorted(self.ids, columns)
        return Risk(np.asarray(columns), self.cov[np.ix_(k, k)])


def evening(cov, scores=None, classes=None):
    "Signals of one evening about funds with a given covariance"
    ids = [f'F{j:03d}' for j in range(len(cov))]
    facts = {} if classes is None else dict(asset_class=[Fact(i, '2024-06-28', '2024-06-28', c) for i,c in zip(ids, classes)])
    view = Panel(['2024-06-28'], ids, dict(close=np.ones((1, len(ids)))), facts=facts).view('2024-06-28')
    mask,x = np.ones((1, len(ids)), bool),np.ones((1, len(ids))) if scores is None else np.array(scores, float)[None]
    return Signals(view, Universe(mask, np.where(mask, '', 'out')), {}, x, Given(ids, cov), costs=Proportional(10.))


def weights(rule, *parts, held=None):
    t = rule.construct(evening(*parts), held)
    assert t.status==['ok'], t.reason
    return t.weights[0]


# ---- known numbers

@pytest.mark.skipif(not GOLDEN.exists(), reason='the file of reference numbers is absent')
def test_reference_numbers():
    golden = json.loads(GOLDEN.read_text())
    vol,corr = np.array([.1, .2, .3, .4]),np.eye(4)
    corr[0,1] = corr[1,0] = .8
    corr[2,3] = corr[3,2] = -.5
    cov = corr*np.outer(vol, vol)
    simple,paper = golden['equal_risk_contribution']
    np.testing.assert_allclose(weights(RiskParity(), np.diag([4., 9])), simple['weights'], atol=1e-14)
    for rule,want in ((RiskParity(), paper), (MinimumVariance(), golden['min_variance_long_only'])):
        w = weights(rule, cov)
        np.testing.assert_allclose(w, want['weights'], atol=1e-8)
        np.testing.assert_allclose(np.sqrt(w@cov@w), want['vol'], rtol=1e-12)


# ---- other solvers, on the same covariances

@cache
def covariances(source):
    "(covariances, expected returns)"
    if source=='real':
        closes = {o:pd.read_csv(SHARED/'yahoo_daily'/f'{o}.csv', index_col=0, parse_dates=True).AdjClose for o in CORE}
        r = pd.DataFrame(closes).loc['2006-06-01':'2024-06-28'].pct_change().iloc[1:].to_numpy()
    else:
        rng = np.random.default_rng(5)
        common = rng.standard_t(4, (4300, 3))*.006
        r = common@rng.normal(.5, .6, (3, 20)) + rng.standard_t(4, (4300, 20))*rng.uniform(.0005, .01, 20)
    ends = np.linspace(252, len(r), 12).astype(int)
    return [252*ledoit_wolf(r[e-252:e])[0] for e in ends],np.linspace(.01, .12, 20)


def slsqp(f, grad, n, cap, *more):
    cons = [dict(type='eq', fun=lambda w: w.sum()-1, jac=lambda w: np.ones(n)), *(dict(type='ineq', fun=o) for o in more)]
    fine = dict(ftol=1e-15, maxiter=2000)
    return minimize(f, np.full(n, 1/n), jac=grad, bounds=[(0, cap)]*n, constraints=cons, method='SLSQP', options=fine)


def by_group(cov):
    "Minimum variance with groups, a least beta and a ball around the eleventh fund"
    classes,unit,beta = ['bond', 'equity', 'equity', 'gold']*5,1/np.diag(cov).mean(),cov[10]/cov[10,10]
    groups = GroupLimit('asset_class', 'bond', .3, 1.),GroupLimit('asset_class', 'gold', 0., .15)
    rule = MinimumVariance(constraints=Limits(.3, groups=groups, benchmark='F010', min_beta=.3, max_tracking_error=.12))
    bond,gold,e = (np.array([o==c for o in classes], float) for c in ('bond', 'gold', ''))
    e[10] = 1
    t = rule.construct(evening(cov, None, classes))
    if t.status!=['ok']: return t.reason[0]
    w = t.weights[0]
    o = slsqp(lambda x: unit*x@cov@x, lambda x: 2*unit*cov@x, 20, .3, lambda x: bond@x-.3, lambda x: .15-gold@x,
        lambda x: beta@x-.3, lambda x: 100*(.12**2 - (x-e)@cov@(x-e)))
    assert min(bond@w-.3, .15-gold@w, beta@w-.3, .12-np.sqrt((w-e)@cov@(w-e)))>=-1e-11
    assert unit*w@cov@w<=o.fun*(1+1e-8) or not o.success
    return 'solved'


@pytest.mark.parametrize('source', SOURCES)
class TestAgainstSciPy:
    "Sequential least squares knows nothing of active sets or cones"
    def test_minimum_variance(self, source):
        def check(cov):
            unit,w = 1/np.diag(cov).mean(),weights(MinimumVariance(constraints=Limits(.2)), cov)
            o = slsqp(lambda x: unit*x@cov@x, lambda x: 2*unit*cov@x, 20, .2)
            assert unit*w@cov@w<=o.fun*(1+1e-8) or not o.success
            np.testing.assert_allclose(w, o.x, atol=1e-4)
        for cov in covariances(source)[0]: check(cov)

    def test_mean_variance(self, source):
        covs,mu = covariances(source)
        def check(cov):
            w = weights(MeanVariance(4., constraints=Limits(.25)), cov, mu)
            o = slsqp(lambda x: 2*x@cov@x - mu@x, lambda x: 4*cov@x - mu, 20, .25)
            assert 2*w@cov@w - mu@w<=o.fun + 1e-8*abs(o.fun)
            np.testing.assert_allclose(w, o.x, atol=1e-4)
        for cov in covs: check(cov)

    def test_groups_beta_and_tracking_error(self, source):
        said = [by_group(cov) for cov in covariances(source)[0]]
        assert 'solved' in said and all(o=='solved' or 'it would take' in o for o in said)

    def test_risk_parity(self, source):
        b = np.linspace(1, 3, 20)/np.linspace(1, 3, 20).sum()
        def check(cov):
            w,sigma = risk_budget_weights(cov, b),np.sqrt(np.diag(cov))
            np.testing.assert_allclose(w*(cov@w)/(w@cov@w), b, rtol=1e-12)
            C = cov/np.outer(sigma, sigma)
            o = minimize(lambda x: x@C@x/2 - b@np.log(x), np.full(20, .3), jac=lambda x: C@x - b/x, bounds=[(1e-6, None)]*20,
                method='L-BFGS-B', options=dict(ftol=1e-16, gtol=1e-12, maxiter=5000))
            np.testing.assert_allclose(w, o.x/sigma/(o.x/sigma).sum(), atol=1e-4)
        for cov in covariances(source)[0]: check(cov)


def published_hrp(cov):
    "Snippets 16.1 to 16.3 of Lopez de Prado's Advances in Financial Machine Learning, on lists"
    corr = cov/np.sqrt(np.outer(np.diag(cov), np.diag(cov)))
    d = np.sqrt(np.maximum((1-corr)/2, 0))
    link = linkage(np.array([np.sqrt(((d[i]-d[j])**2).sum()) for i in range(len(d)) for j in range(i+1, len(d))]), 'single').astype(int)
    ix,n = pd.Series([link[-1,0], link[-1,1]]),link[-1,3]
    while ix.max()>=n:
        ix.index = range(0, 2*len(ix), 2)
        df = ix[ix>=n]
        i,j = df.index,df.values-n
        ix[i] = link[j,0]
        ix = pd.concat([ix, pd.Series(link[j,1], index=i+1)]).sort_index()
    order = ix.tolist()
    w,items = pd.Series(1., index=order),[order]
    def var(k): sub = cov[np.ix_(k, k)]; iv = 1/np.diag(sub); iv /= iv.sum(); return iv@sub@iv
    while items:
        items = [i[j:k] for i in items for j,k in ((0, len(i)//2), (len(i)//2, len(i))) if len(i)>1]
        for i in range(0, len(items), 2):
            a,b = var(items[i]),var(items[i+1])
            w[items[i]] *= 1 - a/(a+b)
            w[items[i+1]] *= a/(a+b)
    return w.sort_index().to_numpy()


@pytest.mark.parametrize('source', SOURCES)
def test_hrp_is_the_published_one_on_funds_listed_by_variance(source):
    for cov in covariances(source)[0]:
        k = np.argsort(np.diag(cov), kind='stable')
        np.testing.assert_allclose(hrp_weights(cov[np.ix_(k, k)]), published_hrp(cov[np.ix_(k, k)]), atol=1e-12)
        np.testing.assert_allclose(hrp_weights(cov)[k], published_hrp(cov[np.ix_(k, k)]), atol=1e-12)


# ---- PyPortfolioOpt

JOBS = [dict(kind='minimum_variance', cap=.2), dict(kind='risk_aversion', cap=.25, value=8.),
    dict(kind='target_volatility', cap=.4, value=.08), dict(kind='hrp', cap=1.)]
RULES = [MinimumVariance(constraints=Limits(.2)), MeanVariance(8., constraints=Limits(.25)),
    MeanVariance(target_volatility=.08, constraints=Limits(.4)), HRP(distance='direct')]


@pytest.mark.skipif(not (ROOT/'.peers'/'.ready').exists(), reason='the environment .peers is absent: make peers')
@pytest.mark.parametrize('source', SOURCES)
def test_against_pyportfolioopt(source):
    covs,mu = covariances(source)
    covs = [c[np.ix_(k, k)] for c in covs[::2] for k in [np.argsort(np.diag(c), kind='stable')]] # HRP depends on the list
    told = json.dumps(dict(jobs=JOBS, mu=mu.tolist(), covs=[c.tolist() for c in covs]))
    done = subprocess.run([ROOT/'.peers'/'bin'/'python', ROOT/'tests'/'peer_weights.py'], input=told, capture_output=True, text=True)
    assert done.returncode==0, done.stderr[-2000:]
    goals = [lambda w, c: -w@c@w, lambda w, c: mu@w - 4*w@c@w, lambda w, c: mu@w, lambda w, c: 0.]
    for rule,theirs,goal in zip(RULES, json.loads(done.stdout), goals, strict=True):
        for cov,w in zip(covs, map(np.array, theirs), strict=True):
            ours = weights(rule, cov, mu)
            np.testing.assert_allclose(ours, w, atol=1e-4, err_msg=repr(rule))
            assert goal(ours, cov)>=goal(w, cov) - 1e-8*abs(goal(w, cov)), rule


# ---- skfolio

BUDGET = (np.linspace(1, 3, 20)/np.linspace(1, 3, 20).sum()).tolist()
MORE = [*JOBS[:3], dict(kind='risk_parity', value=None), dict(kind='risk_parity', value=BUDGET), dict(kind='hrp')]
THEIRS = [*RULES[:3], RiskParity(), RiskParity(budget={f'F{j:03d}':b for j,b in enumerate(BUDGET)}), HRP(distance='direct')]


@cache
def skfolio(source):
    "(covariances, expected returns, what skfolio says)"
    covs,mu = covariances(source)
    covs = [c[np.ix_(k, k)] for c in covs[::3] for k in [np.argsort(np.diag(c), kind='stable')]]
    told = json.dumps(dict(jobs=MORE, mu=mu.tolist(), covs=[c.tolist() for c in covs]))
    command = [ROOT/'.peers'/'bin'/'python', ROOT/'tests'/'peer_skfolio.py', Path(fastcore.__file__).parent.parent]
    env = {**os.environ, 'PYTHONPATH':str(ROOT), 'OPENBLAS_NUM_THREADS':'1'}
    done = subprocess.run(command, input=told, capture_output=True, text=True, env=env)
    assert done.returncode==0, done.stderr[-2000:]
    return covs,mu,json.loads(done.stdout)


peers = pytest.mark.skipif(not (ROOT/'.peers'/'.ready').exists(), reason='the environment .peers is absent: make peers')


def uneven(w, cov, budget):
    "How far contributions to the risk are from a budget, at most"
    return np.abs(w*(cov@w)/(w@cov@w) - budget).max()


@peers
@pytest.mark.parametrize('source', SOURCES)
def test_against_skfolio(source):
    covs,mu,said = skfolio(source)
    even = np.full(20, .05)
    goals = [lambda w, c: -w@c@w, lambda w, c: mu@w - 4*w@c@w, lambda w, c: mu@w,
        lambda w, c: -uneven(w, c, even), lambda w, c: -uneven(w, c, np.array(BUDGET)), lambda w, c: 0.]
    for rule,theirs,goal in zip(THEIRS, said['weights'], goals, strict=True):
        for cov,w in zip(covs, map(np.array, theirs), strict=True):
            ours = weights(rule, cov, mu)
            np.testing.assert_allclose(ours, w, atol=1e-12 if rule is THEIRS[-1] else 1e-4, err_msg=repr(rule))
            assert goal(ours, cov)>=goal(w, cov) - 1e-8*abs(goal(w, cov)) - 1e-14, rule


@peers
def test_the_bridge_to_skfolio():
    "The rule `skfolio`, where skfolio is, against our own rules on the same returns"
    said = skfolio('random')[2]['bridge']
    for name in ('MeanRisk', 'RiskBudgeting'):
        o = said[name]
        assert o['status']==['ok', ''] and max(o['ours'])>.3
        np.testing.assert_allclose(o['theirs'], o['ours'], atol=1e-4)
    assert sorted(said['EqualWeighted'])==[0]*3 + [.2]*5


@peers
@pytest.mark.skipif(not GOLDEN.exists(), reason='the file of reference numbers is absent')
def test_shrinkage_of_skfolio_is_the_golden_one():
    "On its own data set; ours is held against the same numbers in test_risk.py"
    golden,said = json.loads(GOLDEN.read_text())['shrinkage'],skfolio('random')[2]['shrinkage']
    assert said['shape']==[2263, 20]
    for k in ('ledoit_wolf', 'oas'): assert said[k]==pytest.approx(golden[k], rel=1e-10)


# ---- what every portfolio has to satisfy

def random_cov(seed, n):
    rng = np.random.default_rng(seed)
    B,s = rng.normal(size=(n, n+8)),rng.uniform(.03, .4, n)
    return B@B.T/(n+8)*np.outer(s, s)


seeds,sizes = st.integers(0, 2**32-1),st.integers(2, 24)


def rules(n, cap):
    return [RiskParity(), HRP(), MinimumVariance(constraints=Limits(cap)), MinimumVariance(constraints=Limits(cap, .03, min_weight=.2/n)),
        MeanVariance(3., constraints=Limits(cap)), MeanVariance(6., constraints=Limits(cap, max_cash=.6)), MinimumVariance(max(1, n//2))]


@settings(max_examples=25, deadline=None)
@given(seeds, sizes, st.floats(1., 4.))
def test_weights_and_cash_sum_to_one_within_bounds(seed, n, room):
    cov,scores,cap = random_cov(seed, n),np.random.default_rng(seed).normal(.05, .05, n),min(1., room/n)
    for rule in rules(n, cap):
        t = rule.construct(evening(cov, scores))
        assert t.status==['ok'], t.reason
        w,c = t.weights[0],rule.constraints
        assert abs(w.sum()+t.cash[0]-1)<1e-12 and w.min()>=0 and w.max()<=c.max_weight+1e-11
        if isinstance(c, Limits): assert w.sum()>=c.least-1e-11 and w.sum()<=c.invested+1e-11
        if rule.n is None and isinstance(c, Limits): assert w.min()>=c.min_weight-1e-11


@settings(max_examples=25, deadline=None)
@given(seeds, sizes)
def test_the_order_of_funds_does_not_matter(seed, n):
    rng = np.random.default_rng(seed)
    cov,scores,k = random_cov(seed, n),rng.normal(.05, .05, n),rng.permutation(n)
    for rule in rules(n, min(1., 2.5/n)):
        a,b = weights(rule, cov, scores),weights(rule, cov[np.ix_(k, k)], scores[k])
        np.testing.assert_allclose(b, a[k], atol=1e-12, err_msg=repr(rule))
        assert ((b>0)==(a[k]>0)).all()


@settings(max_examples=25, deadline=None)
@given(seeds, sizes, st.floats(-6, 6))
def test_the_unit_of_the_covariance_does_not_matter(seed, n, power):
    cov = random_cov(seed, n)
    for rule in [RiskParity(), HRP(), MinimumVariance(constraints=Limits(min(1., 2.5/n)))]:
        np.testing.assert_allclose(weights(rule, 10**power*cov), weights(rule, cov), atol=1e-11)


def simple(n, cap, m):
    "Rules that look at scores and one number each"
    c = Constraints(cap, .02)
    return [rule for fewer in ('hold', 'cash') for rule in (TopNEqual(m, c, fewer=fewer), InverseVolatility(m, 'vol', c, fewer=fewer),
        ScoreProportional(m, c, fewer=fewer))]


def scored(seed, n, out):
    "Signals of an evening on which some have no score"
    rng = np.random.default_rng(seed)
    s = evening(np.eye(n), np.where(rng.random(n)<out, np.nan, rng.uniform(.01, 1, n)))
    s.features['vol'] = rng.uniform(.03, .4, (1, n))
    return s


@settings(max_examples=40, deadline=None)
@given(seeds, sizes, st.floats(1.1, 4.), st.sampled_from([0., .3, .7]))
def test_simple_rules_keep_the_same_promises(seed, n, room, out):
    "Sum with cash, bounds, the order of funds, the unit of scores and volatilities, for those that hold and those that go to cash"
    s,m = scored(seed, n, out),max(1, n*2//3)
    k,have = np.random.default_rng(seed+1).permutation(n),int((~np.isnan(s.scores)).sum())
    other = Signals(s.view, s.universe, {'vol':s.features['vol'][:,k]}, s.scores[:,k])
    larger = Signals(s.view, s.universe, {'vol':8*s.features['vol']}, 8*s.scores)
    for rule in simple(n, min(1., room/m), m):
        t = rule.construct(s)
        assert (t.status==['hold'])==(have<m and rule.fewer=='hold')
        if t.status==['hold']: assert np.isnan(t.weights).all(); continue
        w = t.weights[0]
        assert abs(w.sum()+t.cash[0]-1)<1e-12 and w.min()>=0 and w.max()<=rule.constraints.max_weight+1e-12
        assert (w>0).sum()==min(have, m) and not w[np.isnan(s.scores[0])].any()
        assert w.sum()==pytest.approx(.98*min(have, m)/m, abs=1e-12)
        np.testing.assert_allclose(rule.construct(other).weights[0], w[k], atol=1e-12)
        assert ((rule.construct(other).weights[0]>0)==(w[k]>0)).all()
        np.testing.assert_allclose(rule.construct(larger).weights[0], w, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(seeds, sizes, st.floats(-3, 3))
def test_returns_and_risks_in_another_unit_are_the_same_problem(seed, n, power):
    cov,mu,k = random_cov(seed, n),np.random.default_rng(seed).normal(.05, .05, n),10**power
    rule = MeanVariance(4., constraints=Limits(min(1., 2.5/n)))
    np.testing.assert_allclose(weights(rule, k*cov, k*mu), weights(rule, cov, mu), atol=1e-9)
    tight = MeanVariance(target_volatility=.2*k**.5, constraints=Limits(max_cash=1.))
    loose = MeanVariance(target_volatility=.2, constraints=Limits(max_cash=1.))
    np.testing.assert_allclose(weights(tight, k*cov, mu), weights(loose, cov, mu), atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(seeds, sizes, st.floats(.01, .5))
def test_turnover_is_kept_and_no_better_portfolio_is_in_reach(seed, n, cap):
    rng = np.random.default_rng(seed)
    cov,held = random_cov(seed, n),rng.dirichlet(np.ones(n))
    w = weights(MinimumVariance(constraints=Limits(max_turnover=cap)), cov, held=held)
    assert max(np.maximum(w-held, 0).sum(), np.maximum(held-w, 0).sum())<=cap+1e-11
    free = weights(MinimumVariance(), cov)
    straight = held + (free-held)*min(1., cap/np.maximum(free-held, 0).sum())
    assert w@cov@w<=straight@cov@straight*(1+1e-10)


# ---- overlays and whole strategies

@pytest.mark.parametrize('overlay', [VolatilityTarget(.08), TrendGate('CORE', 60), DrawdownControl()], ids=lambda o: o._kind)
def test_overlays_keep_the_promises_of_a_component(overlay):
    for rule in (TopNEqual(2, overlays=(overlay,)), MinimumVariance(3, overlays=(overlay, TrendGate('BOND', 50, .5)))):
        check_component(rule, sample_panel())


STRATEGY = dict(universe=dict(kind='static', tickers=['BOND', 'CORE', 'EMKT', 'GOLD', 'TECH']), alpha=dict(kind='rank', feature='mom'),
    features=dict(mom=dict(kind='momentum', lookback=63)), risk=dict(kind='ledoit_wolf', window=126, min_obs=.8),
    execution=dict(shares='fractional'))


def test_a_backtest_walks_within_the_turnover_limit():
    portfolio = dict(kind='minimum_variance', constraints=dict(max_weight=.4, max_turnover=.03),
        overlays=[dict(kind='volatility_target', annual=.055)])
    result = backtest(make_strategy(STRATEGY | dict(portfolio=portfolio)), sample_panel(), '2023-01-03')
    loose = portfolio | dict(constraints=dict(max_weight=.4))
    free = backtest(make_strategy(STRATEGY | dict(portfolio=loose)), sample_panel(), '2023-01-03')
    ok = result.decisions[result.decisions.status=='ok'].turnover_one_way
    assert len(ok)>10 and ok.iloc[1:].max()<.031<.05<free.decisions.turnover_one_way.iloc[2:].max() # Prices move up to the fill
    assert any('volatility_target' in o for o in result.decision.binding) and any('max_turnover' in o for o in result.decision.binding)


def test_a_drawdown_rule_holds_where_the_history_is_not_known():
    strategy = make_strategy(STRATEGY | dict(portfolio=dict(kind='top_n_equal', n=2, overlays=[dict(kind='drawdown_control')])))
    signals = strategy.signals(sample_panel().view('2024-05-31'))
    shares = np.array([10., 0, 0, 0, 0, 0, 0, 0])
    def decided(**more): return strategy.choose(signals, Book(shares, np.full(8, 100.), 0., **more))
    assert decided().status==['hold'] and 'history of the account is not known' in decided().reason[0]
    assert decided(nav_history=np.array([1000., 1180, 1000])).cash[0]==pytest.approx(.525, abs=.03)
    assert strategy.choose(signals).cash[0]==pytest.approx(0, abs=1e-12)


def test_a_strategy_without_a_risk_model_is_refused():
    parts = {k:v for k,v in STRATEGY.items() if k!='risk'}
    with pytest.raises(ConfigError, match='needs a section risk'): make_strategy(parts | dict(portfolio=dict(kind='hrp')))
    overlaid = dict(kind='top_n_equal', n=2, overlays=[dict(kind='volatility_target')])
    with pytest.raises(ConfigError, match='needs a section risk'): make_strategy(parts | dict(portfolio=overlaid))


def test_tree_order_ties_go_by_id():
    assert hrp_order(np.eye(5)).tolist()==hrp_order(np.eye(5)).tolist()
    np.testing.assert_allclose(hrp_weights(np.eye(4)), 1/4)


# ---- fewer scores than funds

def by_hand(close, days, cash, n, lookback=126):
    "Dual momentum in pandas: the n best of those that beat cash, an n-th each, what is missing in cash"
    rows = []
    for d in days:
        seen = close[:d]
        gain = seen.iloc[-1]/seen.iloc[-1-lookback] - 1
        best = gain[gain>gain[cash]].sort_values(ascending=False, kind='stable')[:n]
        rows.append(pd.Series(1/n, best.index))
    return pd.DataFrame(rows, days).reindex(columns=close.columns).fillna(0)


@pytest.mark.parametrize('source', SOURCES)
def test_dual_momentum_goes_to_cash(source):
    "Month by month through falling markets, against pandas"
    from quantetf.calendars import Monthly, sessions_between
    if source=='real':
        names = [*CORE, 'BIL']
        closes = {o:pd.read_csv(SHARED/'yahoo_daily'/f'{o}.csv', index_col=0, parse_dates=True).AdjClose for o in names}
        close = pd.DataFrame(closes).loc['2007-06-01':'2024-06-28'].sort_index(axis=1)
    else:
        days = sessions_between('2007-06-01', '2012-12-31')
        steps = np.random.default_rng(2).normal(-1e-4, .01, (len(days), 7))*np.array([0, 1, 1, 1, 1, 1, 1]) + 5e-5
        close = pd.DataFrame(np.exp(steps.cumsum(axis=0)), pd.DatetimeIndex(days), ['BIL', *'CDEFGH'])
    x = close.to_numpy()
    panel = Panel(close.index.to_numpy('datetime64[D]'), close.columns.tolist(), dict(close=x, tr=x))
    days = Monthly().dates(panel.sessions[130], panel.sessions[-1])
    want = by_hand(close, days, 'BIL', 5)
    parts = dict(universe=dict(kind='all'), features={}, alpha=dict(kind='dual_momentum', lookback=126, against='BIL'))
    rule = dict(kind='top_n_equal', n=5, fewer='cash')
    d = make_strategy(parts | dict(portfolio=rule)).decide(panel.view(days))
    np.testing.assert_allclose(d.weights, want, atol=1e-15)
    np.testing.assert_allclose(d.cash, 1 - want.sum(axis=1), atol=1e-12)
    count = (want>0).sum(axis=1).to_numpy()
    assert set(d.status)=={'ok'} and (count<5).sum()>5 and count.min()<3
    assert all((f'only {k} of 5' in o) if k<5 else o=='' for k,o in zip(count, d.reason, strict=True))
    held = make_strategy(parts | dict(portfolio=rule | dict(fewer='hold'))).decide(panel.view(days))
    assert [o=='hold' for o in held.status]==(count<5).tolist()
    ok = count>=5
    np.testing.assert_array_equal(held.weights[ok], d.weights[ok])


def test_no_members_are_no_opinion():
    "A fund that is no member has not been turned down by anybody, so an evening without enough of them is held"
    s = evening(np.eye(4), [.1, .2, .3, np.nan])
    rules = TopNEqual(4, fewer='cash'),RiskParity(4, fewer='cash'),HRP(4, fewer='cash')
    for rule in rules: assert rule.construct(s).status==['ok'] and abs(rule.construct(s).cash[0]-.25)<1e-12
    out = Signals(s.view, Universe(np.array([[True, True, True, False]]), None), {}, s.scores, s.risk_model)
    for rule in rules: assert rule.construct(out).reason==['only 3 of 4 funds may be held']
    nobody = Signals(s.view, Universe(np.zeros((1, 4), bool), None), {}, s.scores, s.risk_model)
    assert RiskParity(fewer='cash').construct(nobody).status==['hold']


def test_a_part_in_cash_survives_buffer_overlay_turnover_and_tranches():
    parts = STRATEGY | dict(alpha=dict(kind='trend_gated', of=dict(kind='rank', feature='mom'), gate='mom', above=.04))
    panel = sample_panel()
    def decided(**portfolio): return backtest(make_strategy(parts | dict(portfolio=portfolio)), panel, '2023-01-03').decision
    plain = decided(kind='top_n_equal', n=5, fewer='cash')
    short = np.array([bool(o) for o in plain.reason])
    assert 3<short.sum() and set(plain.status)=={'ok'}
    many = [decided(kind='top_n_equal', n=5, fewer='cash', buffer=2),
        decided(kind='top_n_equal', n=5, fewer='cash', overlays=[dict(kind='trend_gate', ticker='CORE', window=60, below=.5)]),
        decided(kind='top_n_equal', n=5, fewer='cash', constraints=dict(max_turnover=.9))]
    for d in many: assert d.reason==plain.reason
    np.testing.assert_allclose(many[0].weights, plain.weights, atol=1e-15)
    three = decided(kind='tranches', k=2, of=dict(kind='top_n_equal', n=5, fewer='cash'))
    np.testing.assert_allclose(three.weights[3:], (plain.weights[3:]+plain.weights[2:-1])/2, atol=1e-15)
    assert all(bool(o)==(short[i] or short[i-1]) for i,o in enumerate(three.reason) if i>2)


# ---- limits, looked at again

def test_group_limits_are_not_for_rules_that_cannot_see_them():
    for kind in ('risk_parity', 'hrp', 'top_n_equal', 'inverse_volatility', 'skfolio'):
        rule = dict(kind=kind, constraints=dict(groups=[dict(fact='asset_class', value='bond', max=.2)]))
        if kind=='skfolio': rule['estimator'] = 'skfolio.optimization:MeanRisk'
        with pytest.raises(ConfigError, match='portfolio.constraints.groups: unknown key'): make_strategy(STRATEGY | dict(portfolio=rule))


@pytest.mark.parametrize('source', SOURCES)
def test_an_optimisers_weights_pass_the_check_and_others_do_not(source):
    "Groups, beta and tracking error, from the weights alone"
    classes = ['bond', 'equity', 'equity', 'gold']*5
    groups = GroupLimit('asset_class', 'bond', .3, 1.),GroupLimit('asset_class', 'gold', 0., .15)
    limits = Limits(.3, groups=groups, benchmark='F010', min_beta=.3, max_tracking_error=.12)
    solved = 0
    for cov in covariances(source)[0]:
        one = evening(cov, None, classes)
        t = MinimumVariance(constraints=limits).construct(one)
        if t.status!=['ok']: continue
        solved += 1
        view,risk = one.view,Risk(one.view.ids, cov)
        def said(w, c=limits, view=view, risk=risk): return check_weights(w, c, ids=view.ids, view=view, risk=risk)
        w = t.weights[0]
        assert said(w)==[]
        bonds,gold = (np.array([o==c for o in classes]) for c in ('bond', 'gold'))
        assert any('asset_class bond is 0.2' in o for o in said(np.where(bonds, w*.29/w[bonds].sum(), w*.71/w[~bonds].sum())))
        assert any('asset_class gold is 0.2' in o for o in said(np.where(gold, .04, w*.8/w[~gold].sum())))
        beta = cov[10]@w/cov[10,10]
        assert any('beta to F010 is' in o for o in said(w, Limits(.3, benchmark='F010', min_beta=beta+1e-6)))
        e = np.eye(20)[10]
        error = np.sqrt((w-e)@cov@(w-e))
        assert said(w, Limits(.3, benchmark='F010', max_tracking_error=error*(1+1e-6)))==[]
        assert any('tracking error' in o for o in said(w, Limits(.3, benchmark='F010', max_tracking_error=error*(1-1e-6))))
    assert solved


def test_the_packet_checks_what_an_optimiser_was_told(tmp_path):
    "Group limits by the asset classes of the data, beta and tracking error, with and without an overlay"
    from dataclasses import replace

    from quantetf.core import find_settings
    from quantetf.data.snapshot import open_snapshot
    from quantetf.production.checks import weights as check
    from quantetf.production.proposal import propose
    place = replace(find_settings(ROOT, environ={}), data=tmp_path/'data', runs=tmp_path/'runs')
    group = dict(fact='asset_class', value='Government bonds', min=.1, max=.3)
    limits = dict(max_weight=.25, groups=[group], benchmark='USL1', max_beta=.5, max_tracking_error=.2)
    parts = STRATEGY | dict(universe=dict(kind='all', filters=[dict(kind='min_age')]), risk=dict(kind='ledoit_wolf'))
    def proposal(**portfolio):
        s = make_strategy(parts | dict(portfolio=dict(kind='minimum_variance', constraints=limits) | portfolio), 'limited')
        return propose(s, open_snapshot('demo', place), '2024-06-28', force=True)
    p = proposal()
    ok = check(p)
    assert ok.status=='PASS', ok
    assert any('Government bonds' in o or 'beta' in o or 'tracking' in o for o in p.decision.binding[0])
    gone = np.zeros(len(p.panel.ids))
    gone[p.panel.ids=='USL1'] = .25
    bad = check(replace(p, decision=replace(p.decision, weights=gone[None], cash=np.array([.75]))))
    assert bad.status=='BLOCK' and 'cash is 0.7500' in bad.evidence
    assert 'the weight of asset_class Government bonds is 0.0000, less than 0.1000' in bad.evidence
    half = proposal(overlays=[dict(kind='volatility_target', annual=.005)])
    assert half.decision.binding[0][-1]=='volatility_target' and half.target.sum()<.5 and check(half).status=='PASS'


# ---- one evening of production, and the same date of a backtest

RULES_IN_PRODUCTION = {
    'tranches': dict(portfolio=dict(kind='tranches', k=3, of=dict(kind='inverse_volatility', n=5, feature='vol', fewer='cash'))),
    'regimes': dict(alpha=dict(kind='regime_switch', benchmark='USL1', up_calm=dict(kind='rank', feature='mom'),
        up_turbulent=dict(kind='rank', feature='vol', ascending=True)), portfolio=dict(kind='top_n_equal', n=4, fewer='cash')),
    'minimum variance': dict(portfolio=dict(kind='minimum_variance', n=12, constraints=dict(max_weight=.3, benchmark='USL1', max_beta=.6),
        overlays=[dict(kind='volatility_target', annual=.04)])),
    'hierarchy': dict(alpha=dict(kind='dual_momentum', lookback=126), portfolio=dict(kind='hrp', n=6, fewer='cash',
        overlays=[dict(kind='trend_gate', ticker='USL1', below=.5)])),
}


@pytest.mark.parametrize('name', RULES_IN_PRODUCTION)
def test_production_decides_as_the_backtest_did(name, tmp_path_factory):
    "On a snapshot that ends on the evening, and in a backtest on everything: the same funds, weights and reasons"
    from dataclasses import replace

    from quantetf.core import find_settings
    from quantetf.data.snapshot import open_snapshot
    from quantetf.production.proposal import propose
    place = replace(find_settings(ROOT, environ={}), data=tmp_path_factory.getbasetemp()/'demo')
    snapshot = open_snapshot('demo', place)
    parts = dict(universe=dict(kind='all', filters=[dict(kind='min_age')]), risk=dict(kind='ledoit_wolf'),
        features=dict(mom=dict(kind='momentum'), vol=dict(kind='volatility')), alpha=dict(kind='rank', feature='mom'))
    strategy = make_strategy(parts | RULES_IN_PRODUCTION[name], 'rule')
    result = backtest(strategy, snapshot_panel(snapshot), '2008-01-02', '2012-12-31')
    d = result.decision
    held = [k for k,o in enumerate(d.status) if o=='hold']
    assert len(d)==60 and len(held)<30
    for k in sorted({2, 11, 30, 59, *held[:1]}):
        day = str(result.panel.sessions[result.rows[k]])
        tonight = propose(strategy, snapshot.until(day), day)
        theirs = dict(zip(tonight.panel.ids.tolist(), tonight.target, strict=True))
        np.testing.assert_array_equal([theirs.get(o, np.nan if k in held else 0.) for o in result.panel.ids.tolist()], d.weights[k], day)
        assert tonight.decision.reason==[d.reason[k]] and tonight.decision.binding==[d.binding[k]]


@cache
def snapshot_panel(snapshot):
    from quantetf.data.view import load_panel
    return load_panel(snapshot)
