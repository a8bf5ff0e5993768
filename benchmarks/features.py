"""How long features take, against the same formula in plain NumPy, in the same process.

The market is 3,000 invented funds over 7,560 sessions, complete, and the evenings are 360 month ends. Plain NumPy is what somebody
would write who knows that there are no gaps: rows of the arrays, windows gathered evening by evening, no dates, names or checks. Each
pair has to agree to 1e-9. Figures are milliseconds of one processor, which on an idle machine are those of the clock, the fewest of
several runs; memory is what is allocated at most beyond the panel.

    python benchmarks/features.py            a minute
    python benchmarks/features.py --quick    300 funds
"""
import os

os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import argparse
import time
import tracemalloc

import numpy as np

from quantetf.alpha import Composite, DualMomentum, RankAverage, RegimeSwitch
from quantetf.alpha import Rank as ByFeature
from quantetf.calendars import sessions_between
from quantetf.crosssection import PercentileRank, Winsorise, ZScore
from quantetf.data.view import Panel
from quantetf.features import Momentum, MomentumBlend, ResidualMomentum, RiskAdjustedMomentum, Volatility
from quantetf.market import Beta, DistributionYield, DollarVolume
from quantetf.trend import DistanceFromHigh, MaxDrawdown, SMATrend
from quantetf.universe import Universe
from quantetf.volatility import EWMAVolatility, GarmanKlassVolatility


def market(funds, sessions=7560, seed=1):
    "A panel of invented funds with bars, quarterly payments and interest"
    rng = np.random.default_rng(seed)
    P = rng.normal(.0003, .011, (sessions, funds))
    np.exp(np.cumsum(P, axis=0, out=P), out=P)
    P *= 50
    cash = np.zeros(P.shape)
    cash[::63] = .2
    fields = dict(close=P, tr=P, open=P*.999, high=P*1.006, low=P*.994, volume=np.full(P.shape, 2e6), cash=cash, split=np.ones(P.shape))
    days = sessions_between('1990-01-02', '2044-12-30')[:sessions]
    return Panel(days, [f'F{j:04d}' for j in range(funds)], fields, rate=np.full(sessions, .03))


def fastest(f, seconds=3., runs=20):
    "Milliseconds of processor; two runs at least"
    took,begin = [],time.perf_counter()
    while len(took)<2 or len(took)<runs and time.perf_counter()-begin<seconds:
        start = time.process_time()
        f()
        took.append(time.process_time() - start)
    return 1e3*min(took)


def megabytes(f):
    tracemalloc.start()
    f()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak/2**20


def by_row(P, rows, n, f): return np.stack([f(P[r-n+1:r+1]) for r in rows])
def log_r(w): return np.diff(np.log(w), axis=0)


def plain(F, rows):
    "The features that have a twin here, by name: an array of month ends x funds"
    P = F['tr']
    decay = .94**np.arange(125, -1, -1)[:,None]
    def beta(w):
        r = log_r(w)
        r -= r.mean(axis=0)
        m = r[:,0]
        return m@r/(m@m)
    def gk(r): # Sums over four fields
        o,h,l,c = (F[k][r-62:r+1] for k in ('open', 'high', 'low', 'close'))
        return np.sqrt(252*(.5*np.log(h/l)**2 - (2*np.log(2)-1)*np.log(c/o)**2).mean(axis=0))
    return {
        'momentum':lambda: P[rows-21]/P[rows-252] - 1,
        'volatility, 60':lambda: by_row(P, rows, 61, lambda w: 252**.5*log_r(w).std(axis=0, ddof=1)),
        'ewma volatility, 126':lambda: by_row(P, rows, 127, lambda w: np.sqrt(252*(decay*log_r(w)**2).sum(axis=0)/decay.sum())),
        'garman-klass, 63':lambda: np.stack([gk(r) for r in rows]),
        'sma trend, 200':lambda: by_row(P, rows, 200, lambda w: w[-1]/w.mean(axis=0)-1),
        'distance from high, 252':lambda: by_row(P, rows, 252, lambda w: w[-1]/w.max(axis=0)-1),
        'max drawdown, 252':lambda: by_row(P, rows, 252, lambda w: (w/np.maximum.accumulate(w, axis=0)).min(axis=0)-1),
        'beta, 252':lambda: by_row(P, rows, 253, beta),
        'dollar volume, 63':lambda: np.stack([np.median(F['close'][r-62:r+1]*F['volume'][r-62:r+1], axis=0) for r in rows]),
        'distribution yield, 252':lambda: np.stack([F['cash'][r-251:r+1].sum(axis=0)/F['close'][r] for r in rows])}


FEATURES = {'momentum':(Momentum(), 50), 'volatility, 60':(Volatility(60), 1000), 'ewma volatility, 126':(EWMAVolatility(), None),
    'garman-klass, 63':(GarmanKlassVolatility(), None), 'sma trend, 200':(SMATrend(), None),
    'distance from high, 252':(DistanceFromHigh(), None), 'max drawdown, 252':(MaxDrawdown(), None), 'beta, 252':(Beta('F0000'), None),
    'dollar volume, 63':(DollarVolume(), None), 'distribution yield, 252':(DistributionYield(), None),
    'momentum blend, three':(MomentumBlend(), None), 'risk-adjusted momentum':(RiskAdjustedMomentum(), None),
    'residual momentum, 756':(ResidualMomentum('F0000'), None)}


def line(what, ms, goal, base, mb):
    met = '' if goal is None else f'goal {goal:,} ms' + ('' if ms<=goal else ' MISSED')
    ratio = '' if base is None else f'{base:10,.1f} ms{ms/base:7.2f} x'
    print(f'{what:28s}{ms:10,.1f} ms{ratio:23s}{mb:8,.0f} MB   {met}'.rstrip(), flush=True)


def main(quick):
    panel = market(300 if quick else 3000)
    rows = np.linspace(800, len(panel.sessions)-1, 360).astype(int)
    view,twins = panel.view(panel.sessions[rows]),plain(panel._fields, rows)
    print(f'{len(panel.ids):,} funds x {len(panel.sessions):,} sessions, {len(rows)} evenings')
    print(f'{"":28s}{"QuantETF":>13s}{"plain NumPy":>13s}{"":9s}{"memory":>11s}')
    for what,(f,goal) in FEATURES.items():
        twin = twins.get(what)
        if twin: np.testing.assert_allclose(f.compute(view), twin(), rtol=1e-9, atol=1e-12, err_msg=what)
        run = lambda f=f: f.compute(view)
        line(what, fastest(run), None if quick else goal, twin and fastest(twin), megabytes(run))
    everybody = Universe(np.ones((len(view), len(view.ids)), bool), None)
    features = dict(mom=Momentum().compute(view), vol=Volatility(60).compute(view))
    class Ready:
        def compute(self, view, universe=None): return features['mom']
    over = {'rank of a feature':PercentileRank(Ready()), 'z-score of a feature':ZScore(Ready()), 'winsorised feature':Winsorise(Ready())}
    for what,f in over.items():
        run = lambda f=f: f.compute(view, everybody)
        line(what, fastest(run), None, None, megabytes(run))
    alphas = {'composite of two':Composite(dict(mom=1., vol=-1.)), 'rank average of two':RankAverage(('mom', 'vol'), ('vol',)),
        'dual momentum':DualMomentum(), 'regime switch':RegimeSwitch('F0000', ByFeature('mom'), ByFeature('vol', ascending=True))}
    for what,a in alphas.items():
        run = lambda a=a: a.score(view, everybody, features)
        line(what, fastest(run), None, None, megabytes(run))


if __name__=='__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--quick', action='store_true', help='300 funds instead of 3,000')
    main(**vars(parser.parse_args()))
