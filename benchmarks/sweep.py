"""How long a sweep takes, against the same arithmetic in plain NumPy: 100 variants of a rotation, 190 funds x 3,512 sessions.

Timed is everything that `compare` does for its cells in one process: the strategies from their configs, universe, features, scores,
weights, orders, fills, daily values, figures. Figures are processor time of the fastest of three runs.

    python benchmarks/sweep.py
"""
import os

os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import numpy as np
from engine import fastest, floor, line, market, month_ends, plain, rotation

from quantetf.evaluation.variants import Sweep, grid_cells, run_cells, shared_prices
from quantetf.strategy import strategy_config


def main():
    sessions,ids,P = data = market(190, 3512)
    rows = month_ends(sessions, 315)
    rows = rows[rows<len(sessions)-1]
    grid = {'features.mom.lookback':list(range(126, 316, 21)), 'portfolio.n':list(range(5, 55, 5))}
    base = strategy_config(rotation(ids, 20))
    cells = grid_cells(Sweep('rotation', grid), base)
    start = str(sessions[rows[0]])

    def run(panel): return run_cells(cells, shared_prices(panel), 'rotation', start, capital=1., workers=1)
    last = np.append(rows, len(sessions)-1)
    for c,o in zip(cells, run(plain(*data)), strict=True):
        nav = np.cumprod(1+o['returns'])
        k,n = c.values.values()
        assert np.abs(nav[last[:-1]-rows[0]]/floor(P, rows, n, k)[last[:-1]-rows[0]]-1).max()<1e-9, c.label
    base_ms = fastest(lambda _: [floor(P, rows, n, k) for k in grid['features.mom.lookback'] for n in grid['portfolio.n']])
    line('100 variants: plain NumPy', base_ms)
    line('100 variants: a sweep in one process', fastest(run, lambda: plain(*data)), 800, base_ms)
    line('of which strategies from configs', fastest(lambda _: grid_cells(Sweep('rotation', grid), base)), bound=base_ms)


if __name__=='__main__': main()
