"""How long random portfolios take, against plain NumPy; and what a second process brings.

    python benchmarks/feasibility.py            random portfolios: a quarter of a minute
    python benchmarks/feasibility.py --sweep    many runs in one process and in two: as long again; wants an otherwise quiet machine

Ten thousand portfolios of five of twenty funds, decided on 216 month ends over 4,550 sessions of invented prices, at 10 bp, in whole
shares that are sized at one close and filled at the next. The floor is what nobody can do without: draw as many funds, look up as many
prices, and multiply as many weights and returns; it has no costs, no shares and no cash. Times are processor time, the fastest of three.
"""
import os

os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import argparse
import resource
import time

import numpy as np

from quantetf.calendars import Monthly, sessions_between
from quantetf.constraints import Constraints
from quantetf.costs import Proportional
from quantetf.data.view import Panel
from quantetf.evaluation.accounts import random_picks, slots_of, walk
from quantetf.parallel import map_runs
from quantetf.strategy import Execution

M,N,n,S = 10_000,20,5,4550


def market(seed=0):
    sessions = sessions_between('2000-01-03', '2024-12-31')[:S]
    close = 100*np.exp(np.cumsum(np.random.default_rng(seed).normal(.0003, .012, (S, N)), axis=0))
    return Panel(sessions, [f'F{j:02}' for j in range(N)], dict(close=close))


def shape_of(R, persistence=.9, seed=1):
    "Places of a strategy that exchanges one name or two a month, as momentum does"
    x,w = np.random.default_rng(seed).normal(size=(R, N)),np.zeros((R, N))
    for k in range(1, R): x[k] = persistence*x[k-1] + (1-persistence**2)**.5*x[k]
    np.put_along_axis(w, np.argsort(-x, axis=1)[:,:n], .99/n, axis=1)
    return slots_of(w)


def ours(panel, rows, shape, terms, at=None):
    picks = random_picks(shape, np.ones((len(rows), N), bool), M, np.random.default_rng(2))
    return walk(panel, rows, picks, shape.weights, terms, Execution(), 0, S-1, 100_000., Constraints(cash_buffer=.01), at)


def floor(close, rows, curves=False):
    "Picks, and growth of equal weights from decision to decision; or from session to session"
    rng,edges = np.random.default_rng(2),np.append(rows, S-1)
    growth,out = np.ones(M),np.empty((S, M)) if curves else None
    for a,b in zip(edges[:-1], edges[1:]):
        key = rng.random((N, M), dtype=np.float32)
        picked = (key<=np.partition(key, n-1, axis=0)[n-1])/n
        relative = (close[a+1:b+1] if curves else close[b:b+1])/close[a]
        value = relative@picked*growth
        if curves: out[a+1:b+1] = value
        growth = value[-1]
    return growth


def fastest(f, *args, times=3):
    "Seconds of processor time"
    took = []
    for _ in range(times):
        t = time.process_time()
        f(*args)
        took.append(time.process_time()-t)
    return min(took)


def portfolios():
    panel = market()
    rows = panel.view(Monthly().dates(panel.sessions[0], panel.sessions[-2], 'XNYS'))._rows
    shape,terms,close = shape_of(len(rows)),Proportional(10).terms(panel.view(panel.sessions[rows])),panel._fields['close']
    print(f'{M:,} portfolios, {n} of {N} funds, {len(rows)} decisions, {S:,} sessions')
    for what,at in ('values at the end', None),('full curves', np.arange(S)):
        mine = fastest(ours, panel, rows, shape, terms, at)
        least = fastest(floor, close, rows, at is not None)
        print(f'{what:<18} {mine:6.2f} s   floor {least:6.2f} s   ratio {mine/least:5.1f}')
    print(f'largest memory     {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e6:6.2f} GB')


def task(seed):
    "About half a second of a backtest's kind of work: what came of it, and its processor time"
    t = time.process_time()
    panel = market(seed)
    rows = np.arange(0, S-2, 21)
    shape,terms = shape_of(len(rows), seed=seed),Proportional(10).terms(panel.view(panel.sessions[rows]))
    picks = random_picks(shape, np.ones((len(rows), N), bool), 2_000, np.random.default_rng(seed))
    end = walk(panel, rows, picks, shape.weights, terms, Execution(), 0, S-1, 100_000.).end
    return [float(end.mean()), time.process_time()-t]


def sweep(count=24):
    "Wall-clock times with warm workers; and processor times, which say what a quiet machine would have shown"
    from feasibility import task as f  # Under the name by which other processes import it
    map_runs(f, [0, 1], workers=2)
    wall,cpu,values = {},{},{}
    for workers in (1, 2):
        t,own = time.perf_counter(),time.process_time()
        found = map_runs(f, list(range(count)), workers=workers)
        wall[workers],parent = time.perf_counter()-t,time.process_time()-own
        values[workers],spent = zip(*found)
        cpu[workers] = parent if workers==1 else sum(spent)/2 + parent
    assert values[1]==values[2]
    load = os.getloadavg()[0]
    print(f'{count} runs, load {load:.1f}: {wall[1]:.1f} s in one process, {wall[2]:.1f} s in two, {wall[1]/wall[2]:.2f} times as fast')
    print(f'by processor time: {cpu[1]:.1f} s and {cpu[2]:.1f} s, {cpu[1]/cpu[2]:.2f} times as fast on two free processors')


if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--sweep', action='store_true', help='what a second process brings')
    sweep() if p.parse_args().sweep else portfolios()
