"""How long a backtest takes, against the same arithmetic in plain NumPy and against other engines.

Timed is the whole decision path: universe, features, scores, weights, orders, fills, daily net asset value. Data, metrics and reports
are not. Each run has a new `Panel`, made before the clock starts, so that nothing is remembered. Figures are processor time, which is
what a clock shows where nothing else runs, of the fastest of several runs; what counts is the ratio of two of them.

Others run in `.peers`, after a warm-up that also compiles: their time is that of a simulation from the same prices and from target
weights that are given to them, the fastest of two runs, or of one where it takes more than 5 seconds. They size on the value before
costs, as they do unasked; bt also exactly as QuantETF does.

    python benchmarks/engine.py                    a minute or two
    python benchmarks/engine.py --quick            small jobs only
    python benchmarks/engine.py --full             others on the large jobs too, which takes them many minutes
    python benchmarks/engine.py --plot cost.svg    how cost grows
"""
import os

os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import argparse
import subprocess
import tempfile
import time
import tracemalloc
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from quantetf.backtest.engine import backtest
from quantetf.calendars import sessions_between
from quantetf.core import read_yaml
from quantetf.data.view import Events, Panel, load_panel
from quantetf.strategy import make_strategy

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT/'.peers'
SHARED = Path(os.environ.get('QUANTETF_REAL_DATA') or ROOT.parent/'shared'/'data')
COST,SKIP,FIRST = .001,21,252 # Per traded notional; sessions that momentum leaves out; row of the first decision, at the earliest
SAME = dict(fill='same_close', sizing='at_fill', shares='fractional')


# ---- markets

def names(n): return [f'F{j:04d}' for j in range(n)]


def market(funds, sessions, seed=1):
    "Dates, ids and prices of an invented market"
    P = np.random.default_rng(seed).normal(.0003, .011, (sessions, funds))
    np.exp(np.cumsum(P, axis=0, out=P), out=P)
    P *= 50
    return sessions_between('1990-01-02', '2044-12-30')[:sessions],names(funds),P


def reference():
    "Adjusted closes of the reference rotation's twenty funds, or as many invented prices; and which"
    sessions,ids = sessions_between('2006-06-01', '2024-06-28'),read_yaml(ROOT/'configs'/'universes'/'core20.yaml')['tickers']
    files = [SHARED/'yahoo_daily'/f'{o}.csv' for o in ids]
    if not all(o.exists() for o in files): return (sessions, ids, market(20, len(sessions))[2]),'invented prices'
    closes = [pd.read_csv(o, index_col=0, parse_dates=True).AdjClose for o in files]
    return (sessions, ids, pd.concat(closes, axis=1).reindex(pd.DatetimeIndex(sessions.astype('M8[ns]'))).to_numpy()),'real prices'


def plain(sessions, ids, P): return Panel(sessions, ids, dict(close=P, tr=P), basis=['as_traded']*len(ids))


def traded():
    "A function that lays out a new panel of real prices as traded, with their dividends and splits; None where the files are not here"
    if not (SHARED/'yahoo_daily').exists(): return None
    from quantetf.core import find_settings
    from quantetf.data.ingest import ingest
    with tempfile.TemporaryDirectory() as place:
        settings = replace(find_settings(ROOT, environ={}), data=Path(place))
        panel = load_panel(ingest('csv', SHARED/'yahoo_daily', 'real', settings))
        fields = {k:np.array(panel._fields[k]) for k in panel._fields}
    return lambda: Panel(panel.sessions, panel.ids, fields, rate=panel.rate, events=panel._events, basis=list(panel.basis))


def eventful(sessions, ids, P, seed=2):
    "A panel as traded: splits, dividends paid ten sessions after their ex-date, bars that are missing, funds that close"
    (S,N),rng = P.shape,np.random.default_rng(seed)
    split,ratio = np.ones((S, N)),np.where(np.arange(N)%3==0, 2., .5)
    some = np.arange(0, N, 2)
    split[rng.integers(100, S-100, len(some)),some] = ratio[some]
    close,tr = P/np.cumprod(split, axis=0),P.copy()
    ex,col = np.array([(t, j) for j in range(N) for t in range(40+j%21, S, 63)]).T
    cash = .004*close[ex,col]
    order = np.lexsort((col, ex))
    ex,col,cash = ex[order],col[order],cash[order]
    closed = np.full(N, S)
    closed[::10] = rng.integers(S//3, S-1, len(closed[::10]))
    none = (rng.random((S, N))<.001) | (np.arange(S)[:,None]>closed)
    none[closed[::10],np.arange(0, N, 10)] = False
    for x in (close, tr): x[none] = np.nan
    events = Events(ex, np.minimum(ex+10, S), col, cash, closed, np.full(N, np.nan))
    return Panel(sessions, ids, dict(close=close, tr=tr, split=split), events=events)


# ---- jobs

@dataclass(frozen=True)
class On:
    "A schedule of given sessions"
    days:object # (R,) datetime64
    label = 'listed'
    def dates(self, start, end, exchange='XNYS'): return self.days[(self.days>=np.datetime64(start)) & (self.days<=np.datetime64(end))]


def rotation(ids, n, days=None, lookback=252, execution=SAME, **constraints):
    strategy = make_strategy(dict(universe=dict(kind='static', tickers=list(ids)), alpha=dict(kind='rank', feature='mom'),
        features=dict(mom=dict(kind='momentum', lookback=lookback, skip=SKIP)), costs=dict(kind='proportional', bps=1e4*COST),
        portfolio=dict(kind='top_n_equal', n=n, constraints=constraints), execution=execution), 'rotation')
    return strategy if days is None else replace(strategy, schedule=On(days))


def month_ends(sessions, first=FIRST):
    "Rows of the last session of each complete month, and the last row, from row `first` on"
    month = sessions.astype('datetime64[M]')
    rows = np.append(np.flatnonzero(month[1:]!=month[:-1]), len(sessions)-1)
    return rows[rows>=first]


def floor(P, rows, n, lookback=252):
    "The job with nothing around it: no dates, no names, no missing prices, no cash, one cost rate"
    S,N = P.shape
    R = len(rows)
    chosen = np.sort(np.argpartition(-P[rows-SKIP]/P[rows-lookback], n-1, axis=1)[:,:n], axis=1)
    w = np.full((R, n), 1/n)
    period = np.repeat(np.arange(R), np.diff(np.append(rows, S)))
    shares = w/np.take_along_axis(P[rows], chosen, 1)
    prices = P.reshape(-1)[(np.arange(rows[0], S)*N)[:,None] + chosen[period]]
    growth = np.einsum('tn,tn->t', prices, shares[period])
    ended = np.take_along_axis(P[rows[1:]], chosen[:-1], 1)*shares[:-1]
    total = ended.sum(1)
    drifted,target = np.zeros((R, N)),np.zeros((R, N))
    np.put_along_axis(drifted[1:], chosen[:-1], ended/total[:,None], 1)
    np.put_along_axis(target, chosen, w, 1)
    left = np.ones(R)
    for _ in range(8): left = 1 - COST*np.abs(target*left[:,None]-drifted).sum(1)
    return np.cumprod(left*np.append(1., total))[period]*growth


# ---- measuring

def fastest(f, ready=lambda: None, seconds=2., runs=30):
    "Milliseconds of processor time of f(ready()), without what `ready` takes; three runs at least"
    took,begin = [],time.perf_counter()
    while len(took)<3 or len(took)<runs and time.perf_counter()-begin<seconds:
        x = ready()
        start = time.process_time()
        f(x)
        took.append(time.process_time() - start)
        del x
    return 1e3*min(took)


def traced(f, x):
    "Megabytes that f(x) allocates at most, beyond what there was"
    tracemalloc.start()
    f(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak/2**20


def peers(asked):
    "(case, who, seconds), one after the other, for arrays 'case|who|k', by the script that runs in `.peers`"
    with tempfile.TemporaryDirectory() as place:
        file,python = Path(place)/'questions.npz',PEERS/('Scripts' if os.name=='nt' else 'bin')/'python'
        np.savez(file, **asked)
        with subprocess.Popen([python, ROOT/'tests'/'peer_curves.py', '--time', file], stdout=subprocess.PIPE, text=True,
                env={**os.environ, 'NUMBA_CACHE_DIR':str(PEERS/'numba'), 'PYTHONPATH':''}) as running:
            for o in running.stdout:
                if o.count('|')==2: yield o.split('|')
    if running.returncode: raise RuntimeError('the script in .peers failed, see above')


def line(what, ms, goal=None, bound=None, unit='ms', note=''):
    met = '' if goal is None else f'goal {goal:,.3g} {unit}' + ('' if ms<=goal else ' MISSED')
    print(f'{what:52s}{ms:11,.2f} {unit:3s}{"" if bound is None else f"{ms/bound:9.1f} x":11s}  {met:22s}{note}'.rstrip(), flush=True)


class Bench:
    "Runs jobs, compares each curve with the floor's, and remembers what to ask the others"
    def __init__(self): self.asked,self.ours = {},{}

    def job(self, what, data, n, goal, who=(), rows=None, **more):
        "A rotation against the floor; returns the milliseconds of the latter"
        sessions,ids,P = data
        rows = month_ends(sessions) if rows is None else rows
        strategy = rotation(ids, n, sessions[rows], **more)
        def run(panel): return backtest(strategy, panel, sessions[rows[0]], capital=1.)
        result = run(plain(*data))
        off = np.abs(result.nav/floor(P, rows, n)-1).max()
        assert off<1e-10, f'{what}: QuantETF and plain NumPy differ by {off:.1e}'
        base = fastest(lambda _: floor(P, rows, n))
        ms = fastest(lambda panel: run(panel).nav, lambda: plain(*data))
        line(f'{what}: plain NumPy', base)
        line(what, ms, goal, base)
        self.ours[what] = ms
        self.ask(what, who, P, rows, result.decision.weights)
        return base

    def ask(self, what, who, P, rows, weights):
        "Remember a question: simulate from the first of the rows on"
        for o in who: self.asked |= {f'{what}|{o}|{k}':v for k,v in enumerate((P[rows[0]:], rows-rows[0], weights, COST))}

    def others(self):
        if not self.asked: return
        if not (PEERS/'.ready').exists(): print('\nother engines: none here; make peers'); return
        print('\nother engines, from the same prices and from given target weights; against QuantETF, which also decides')
        for what,who,seconds in peers(self.asked): line(f'{what}: {who}', 1e3*float(seconds), bound=self.ours[what])


def variants(bench, data, goal, who=()):
    "A hundred variants of one rotation, one after the other on one panel"
    sessions,ids,P = data
    what,rows = '100 variants, 190 x 3,512',month_ends(sessions, 315)
    grid = [(k, n) for k in range(126, 316, 21) for n in range(5, 55, 5)]
    strategies = [rotation(ids, n, sessions[rows], k) for k,n in grid]
    def run(panel): return [backtest(o, panel, sessions[rows[0]], capital=1.).nav for o in strategies]
    for (k, n),nav in zip(grid, run(plain(*data))): assert np.abs(nav/floor(P, rows, n, k)-1).max()<1e-10, (k, n)
    base = fastest(lambda _: [floor(P, rows, n, k) for k,n in grid])
    bench.ours[what] = fastest(run, lambda: plain(*data))
    line(f'{what}: plain NumPy', base)
    line(what, bench.ours[what], goal, base)
    if who: bench.ask(what, who, P, rows, np.array([o.decide(plain(*data).view(sessions[rows])).weights for o in strategies]))


def real_actions(goal):
    "The reference funds as traded, against prices of which nothing ever happens: their total return"
    make = traded()
    if make is None: print('real actions: the real files are not here'); return
    panel,ids = make(),list(reference()[0][1])
    first,close = panel.sessions[np.searchsorted(panel.sessions, np.datetime64('2007-06-29'))],panel._fields['tr']
    seen = np.maximum.accumulate(np.where(np.isnan(close), 0, np.arange(len(close))[:,None]), axis=0)
    data = panel.sessions,panel.ids,np.take_along_axis(close, seen, axis=0)
    for what,execution in (('fractions, same close', SAME), ('fractions, next close', dict(shares='fractional')),
            ('whole shares, next close', {})):
        strategy = rotation(ids, 5, execution=execution)
        def run(panel, strategy=strategy): return backtest(strategy, panel, first, capital=1e6).nav
        base,ms = fastest(run, lambda: plain(*data)),fastest(run, make)
        line(f'real actions, as traded: {what}', ms, goal*base, base, note=f'(goal: {goal} times {base:.2f}, where nothing happens)')


def actions(data, n):
    "As traded with much more happening than in any market: half of the funds split, a tenth closes, one close in a thousand is missing"
    sessions,ids,_ = data
    strategy,start = rotation(ids, n, sessions[month_ends(sessions)], execution={}),sessions[FIRST]
    def run(panel): return backtest(strategy, panel, start, capital=1e7).nav
    a = backtest(strategy, eventful(*data), start, capital=1e7).account
    late = ~np.isin(a.fills, a.decided+1)
    assert a.owed.any() and not a.ledger.plain and late.any() and (a.units[:,::10]!=0).any(), 'nothing happens to what is held'
    base,ms = (fastest(run, lambda make=make: make(*data)) for make in (plain, eventful))
    line('190 x 3,512, whole shares, nothing happens', base)
    line('the same, splits, closures and gaps at random', ms, None, base)


def small(bench):
    data,which = reference()
    sessions,ids,P = data
    print(f'20 x 4,550 is the reference rotation on {which}: {len(P):,} sessions, {len(month_ends(sessions))} rebalances\n')
    base = bench.job('20 x 4,550, top 5', data, 5, 2, ('bt', 'bt_native', 'vectorbt_native', 'backtrader'))
    start = sessions[month_ends(sessions)[0]]
    for what,goal,strategy in (('turnover cap, date by date', 15, rotation(ids, 5, max_turnover=.3)),
            ('filled on the next close, whole shares', None, rotation(ids, 5, execution={}))):
        capital = 1e6 if goal is None else 1.
        ms = fastest(lambda panel, s=strategy, c=capital: backtest(s, panel, start, capital=c).nav, lambda: plain(*data))
        line(f'20 x 4,550, {what}', ms, goal, base)


    real_actions(3)


def large(bench, full):
    more = ('bt_native', 'vectorbt_native') if full else ()
    data = market(190, 3512)
    bench.job('190 x 3,512, top 20', data, 20, 8, ('bt_native', 'vectorbt_native') + (('bt', 'backtrader') if full else ()))
    variants(bench, data, 800, more)
    actions(data, 20)
    data = market(200, 5040+FIRST)
    bench.job('200 daily for 20 years', data, 200, 500, more or ('vectorbt_native',), np.arange(FIRST, len(data[2])))
    data = market(3000, 7560)
    bench.job('3,000 x 7,560, top 100', data, 100, 250, more)
    sessions,ids,_ = data
    strategy,panel = rotation(ids, 100),plain(*data)
    mb = traced(lambda p: backtest(strategy, p, sessions[FIRST], capital=1.).nav, panel)
    line('3,000 x 7,560, top 100: memory beyond the panel', mb, 400, unit='MB')


# ---- how cost grows

def fitted(x, y):
    "(slope, intercept, R squared) of a straight line"
    b,a = np.polyfit(x, y, 1)
    return b,a,1 - np.sum((y-a-b*x)**2)/np.sum((y-y.mean())**2)


def cost_of(sessions, held, rebalances):
    "Milliseconds of a backtest that holds `held` of a few more funds"
    data = market(held+5, sessions+FIRST)
    rows = np.linspace(FIRST, len(data[0])-2, rebalances).astype(int)
    strategy,start = rotation(data[1], held, data[0][rows]),data[0][FIRST]
    return fastest(lambda panel: backtest(strategy, panel, start, capital=1.).nav, lambda: plain(*data), runs=60)


def growth(file):
    "Cost against sessions x positions, at 24 rebalances, and against rebalances; and their picture"
    import matplotlib
    matplotlib.use('agg')
    import matplotlib.pyplot as plt
    sizes = [(s, n, 24) for s in (1260, 2520, 5040, 7560) for n in (10, 50, 100, 200)]
    often = [(5040, 50, r) for r in (12, 60, 240, 500, 1000, 1750, 2500)]
    plt.rcParams['svg.hashsalt'] = 'quantetf'
    fig,axes = plt.subplots(1, 2, figsize=(10, 4), layout='constrained')
    panels = ((sizes, 'sessions × positions, million', lambda s, n, r: s*n/1e6),
        (often, 'rebalances, 5,040 sessions × 50 positions', lambda s, n, r: r))
    print()
    for ax,(jobs,label,x_of) in zip(axes, panels):
        x,y = np.array([x_of(*o) for o in jobs]),np.array([cost_of(*o) for o in jobs])
        b,a,r2 = fitted(x, y)
        print(f'{a:.2f} ms + {b:.4g} ms x {label}: R^2 = {r2:.4f}, {x.min():g} to {x.max():g}')
        ax.plot(x, y, 'o')
        ax.plot(x_line := np.array([0, x.max()]), a+b*x_line, lw=1)
        ax.set(xlabel=label, ylabel='ms', title=f'{a:.2f} + {b:.4g} x, R² = {r2:.4f}', ylim=(0, None))
    fig.savefig(file, metadata={'Date':None} if str(file).endswith('.svg') else None)


def main(quick, full, plot):
    bench = Bench()
    small(bench)
    if not quick: large(bench, full)
    bench.others()
    if plot: growth(plot)


if __name__=='__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--quick', action='store_true', help='small jobs only')
    parser.add_argument('--full', action='store_true', help='other engines on the large jobs too')
    parser.add_argument('--plot', help='file for a picture of how cost grows, .svg or .png')
    main(**vars(parser.parse_args()))
