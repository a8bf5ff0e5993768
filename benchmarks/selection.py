"""Cross-validation of a choice, and the evidence of many trials, one BLAS thread: CPU seconds, and those of a floor.

Sixteen blocks over 100 strategies x 2,500 sessions (goal: 2 s). The floor is the Sharpe ratio of each half from slices, on a hundredth of
the 12,870 ways and multiplied. Then effective number and deflated Sharpe ratio of 1,000 trials x 4,550 sessions; the floor is one
matrix of their correlations.

    python benchmarks/selection.py
"""
import os

os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import time
from itertools import combinations, islice

import numpy as np

from quantetf.evaluation.overfitting import overfitting_probability, selection


def seconds(f, repeat=3):
    "Least CPU seconds of a few runs"
    best = np.inf
    for _ in range(repeat):
        t = time.process_time()
        f()
        best = min(best, time.process_time()-t)
    return best


def slices(r, blocks=16, ways=128):
    "Sharpe ratios of both halves, the slow way"
    parts = np.array_split(np.arange(len(r)), blocks)
    for k in islice(combinations(range(blocks), blocks//2), 0, None, 12_870//ways):
        for half in k, [i for i in range(blocks) if i not in k]:
            x = r[np.concatenate([parts[i] for i in half])]
            x.mean(axis=0)/x.std(axis=0, ddof=1)


if __name__=='__main__':
    rng = np.random.default_rng(0)
    few,many = rng.normal(0, .01, (2500, 100)),rng.normal(0, .01, (4550, 1000))
    ours,floor = seconds(lambda: overfitting_probability(few)),seconds(lambda: slices(few), 1)*12_870/129
    print(f'cross-validation, 16 blocks x 100 x 2,500   {ours:6.2f} s   by slices {floor:6.1f} s   {floor/ours:5.0f} x')
    ours,floor = seconds(lambda: selection(many[:,0], many, 252)),seconds(lambda: np.corrcoef(many.T))
    print(f'evidence of 1,000 trials x 4,550            {ours:6.2f} s   correlations {floor:6.2f} s {ours/floor:5.1f} x')
