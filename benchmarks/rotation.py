"""The reference rotation: 20 funds x 4,550 sessions, top 5 by 12-1 momentum each month end, against the same arithmetic in plain NumPy.

Timed is the whole decision path: universe, features, scores, weights, orders, fills, daily net asset value. Data, metrics and
reports are not. Figures are the fastest of several runs, and what counts is the ratio of two of them in one process.

    python benchmarks/rotation.py
"""
import os

os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import time

import numpy as np

from quantetf.backtest.engine import backtest
from quantetf.calendars import sessions_between
from quantetf.data.view import Panel
from quantetf.strategy import make_strategy

COST = .001


def month_ends(sessions, first=252):
    "Rows of the last session of each month, from row `first` on"
    month = sessions.astype('datetime64[M]')
    rows = np.append(np.flatnonzero(month[1:]!=month[:-1]), len(sessions)-1)
    return rows[rows>=first]


def floor(P, rows, n=5):
    "The job with nothing around it: no dates, no names, no missing prices, no cash, one cost rate"
    S,N = P.shape
    R = len(rows)
    chosen = np.sort(np.argpartition(-P[rows-21]/P[rows-252], n-1, axis=1)[:,:n], axis=1)
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


def market(seed=1):
    "Panel and prices of a random market; ids in the order of the columns"
    sessions = sessions_between('2006-06-01', '2024-06-28')
    steps = np.random.default_rng(seed).normal(.0003, .011, (len(sessions), 20))
    P = 50*np.exp(np.cumsum(steps, axis=0))
    ids = [f'F{j:02d}' for j in range(20)]
    return Panel(sessions, ids, dict(open=P, close=P, tr=P), basis=['total_return']*20),P


def rotation(execution, **constraints):
    ids = [f'F{j:02d}' for j in range(20)]
    return make_strategy(dict(universe=dict(kind='static', tickers=ids), features=dict(mom=dict(kind='momentum')),
        alpha=dict(kind='rank', feature='mom'), portfolio=dict(kind='top_n_equal', n=5, constraints=constraints),
        costs=dict(kind='proportional', bps=1e4*COST), execution=dict(shares='fractional') | execution), 'rotation')


def fastest(f, runs=30):
    "Milliseconds"
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        f()
        times.append(time.perf_counter() - start)
    return 1e3*min(times)


def main():
    panel,P = market()
    rows = month_ends(panel.sessions)
    start = panel.sessions[rows[0]]
    same_close = dict(fill='same_close', sizing='at_fill')
    free,capped,next_day = rotation(same_close),rotation(same_close, max_turnover=.3),rotation({})
    jobs = (('nothing depends on the book', free, 4), ('the same, filled on the next close', next_day, None),
        ('turnover cap, date by date', capped, 15))
    ours = backtest(free, panel, start, capital=1.).nav
    assert np.abs(ours/floor(P, rows)-1).max()<1e-10, 'the two do not agree'
    base = fastest(lambda: floor(P, rows))
    print(f'{len(P):,} sessions x {P.shape[1]} funds, {len(rows)} rebalances')
    print(f'{"plain NumPy":38s}{base:8.2f} ms')
    for name,strategy,goal in jobs:
        ms = fastest(lambda s=strategy: backtest(s, panel, start, capital=1.).nav)
        print(f'{name:38s}{ms:8.2f} ms  {ms/base:6.1f} x' + (f'   goal {goal} ms' if goal else ''))


if __name__=='__main__': main()
