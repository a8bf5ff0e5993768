"""Optimisers on many evenings, one BLAS thread: CPU seconds, and those of the covariance alone.

Minimum variance with a 20 % cap over Ledoit-Wolf covariances of 252 sessions: 20 funds x 204 month ends, and 190 funds x 155 (goals: 0.2 s
and 2 s). Then the other rules on the smaller market. Random returns with common factors. The floor is what NumPy needs for the same
covariances and one linear system each.

    python benchmarks/portfolio.py
"""
import os

os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import time

import numpy as np

from quantetf.calendars import sessions_between
from quantetf.constraints import Limits
from quantetf.costs import Proportional
from quantetf.data.view import Panel
from quantetf.optimise import HRP, MeanVariance, MinimumVariance, RiskParity
from quantetf.portfolio import Signals
from quantetf.risk import LedoitWolf
from quantetf.universe import Universe


def market(funds, evenings, seed=1):
    "Signals of the last `evenings` month ends"
    rng = np.random.default_rng(seed)
    days = sessions_between('2002-01-02', '2024-06-28')[-21*evenings-260:]
    own = rng.standard_t(4, (len(days), funds))*rng.uniform(.0005, .008, funds)
    r = .006*rng.standard_t(4, (len(days), 5))@rng.normal(.4, .5, (5, funds)) + own
    tr = np.cumprod(1+r, axis=0)
    panel = Panel(days, [f'F{j:03d}' for j in range(funds)], dict(close=tr, tr=tr))
    view = panel.view(days[::-21][:evenings][::-1])
    mask = np.ones((evenings, funds), bool)
    return Signals(view, Universe(mask, np.full(mask.shape, '')), {}, rng.normal(.06, .03, mask.shape), LedoitWolf(), costs=Proportional())


def seconds(f, repeat=3):
    "Least CPU seconds of a few runs"
    best = np.inf
    for _ in range(repeat):
        t = time.process_time()
        f()
        best = min(best, time.process_time()-t)
    return best


def floor(signals):
    "Covariances and one linear system each, in plain NumPy"
    for o in signals.view:
        w = o.window('tr', 253)[0]
        x = w[1:]/w[:-1] - 1
        x = x - x.mean(axis=0)
        cov = x.T@x/len(x)
        np.linalg.solve(cov + np.eye(len(cov))*np.trace(cov)/len(cov)*.02, np.ones(len(cov)))


def walk(rule, signals):
    held = None
    for i in range(len(signals)): held = rule.construct(signals[i], held).weights[0]


def estimated(signals):
    for o in signals.view: signals.risk_model.estimate(o, o.ids)


def line(what, s, note=''): print(f'{what:58} {s:8.3f} s  {note}')


if __name__=='__main__':
    capped = MinimumVariance(constraints=Limits(.2))
    for funds,evenings,goal in ((20, 204, .2), (190, 155, 2.)):
        signals = market(funds, evenings)
        assert set(capped.construct(signals).status)=={'ok'}
        took = seconds(lambda s=signals: capped.construct(s))
        line(f'{funds} funds x {evenings}: minimum variance, at most 20 %', took, f'goal {goal} s')
        line('  of which the risk model', seconds(lambda s=signals: estimated(s)))
        line('  NumPy floor: covariances and one system each', seconds(lambda s=signals: floor(s)))
    signals = market(20, 204)
    ball = Limits(.3, benchmark='F003', max_tracking_error=.12)
    rules = {'risk parity':RiskParity(), 'hierarchical risk parity':HRP(), 'mean-variance':MeanVariance(5., constraints=Limits(.3)),
        'mean-variance, target volatility':MeanVariance(target_volatility=.2, constraints=Limits(.3)),
        'minimum variance, tracking error':MinimumVariance(constraints=ball)}
    for name,rule in rules.items(): line(f'20 funds x 204: {name}', seconds(lambda r=rule: r.construct(signals), 1))
    for name,rule in {'turnover at most 5 %':MinimumVariance(constraints=Limits(.2, max_turnover=.05)),
            'trades priced':MinimumVariance(constraints=Limits(.2), cost_aversion=.01)}.items():
        line(f'20 funds x 204, walked: minimum variance, {name}', seconds(lambda r=rule: walk(r, signals), 1))
