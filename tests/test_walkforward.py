"Walk-forward tests: what crosses processes, and what cannot be chosen"
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from quantetf.backtest.engine import backtest
from quantetf.backtest.simulate import simulate
from quantetf.calendars import sessions_between
from quantetf.core import ConfigError, ParameterError
from quantetf.data.view import Panel
from quantetf.evaluation.variants import make_sweep
from quantetf.evaluation.walkforward import chosen_again, walk_forward
from quantetf.strategy import make_strategy

ROOT = Path(__file__).resolve().parent.parent
BASE = dict(universe=dict(kind='static', tickers=list('ABCDEF')), features=dict(mom=dict(kind='momentum', lookback=40, skip=2)),
    alpha=dict(kind='rank', feature='mom'), portfolio=dict(kind='top_n_equal', n=2), benchmark='A')


@pytest.fixture(scope='module')
def panel():
    days,rng = sessions_between('2014-01-01', '2019-12-31'),np.random.default_rng(3)
    tr = 50*np.cumprod(1+rng.normal(.0003, .01, (len(days), 6)), axis=0)
    return Panel(days, list('ABCDEF'), dict(close=tr, tr=tr))


def walked(panel, vary, base=BASE, **how):
    return walk_forward(make_sweep(dict(strategy='x', vary=vary), 'few'), base, make_strategy(base, 'x'), panel,
        **dict(train=252, test=126) | how)


def test_the_account_is_the_engines_on_the_concatenated_decisions(panel):
    w = walked(panel, {'features.mom.lookback':[20, 60, 120], 'portfolio.n':[1, 2, 3]})
    assert len(set(w.choices.tolist()))>1
    r = w.result
    parts,rows = [],[]
    for win,k,end in zip(w.windows, w.choices, [o.test[1]-1 for o in w.windows[:-1]] + [r.account.end]):
        s = make_strategy(w.cells[k].config, 'x')
        due = s.schedule.dates(panel.sessions[win.test[0]], panel.sessions[end])
        parts.append(s.decide(panel.view(due)).weights)
        rows.append(np.searchsorted(panel.sessions, due))
    rows,weights = np.concatenate(rows),np.concatenate(parts)
    strategy = make_strategy(BASE, 'x')
    alone = simulate(panel, rows, weights, strategy.costs.terms(panel.view(panel.sessions[rows])), strategy.execution, r.account.start,
        r.account.end, 1e5)
    assert r.nav.tobytes()==alone.nav.tobytes()
    assert r.conserved()<1e-9


def test_training_figures_are_those_of_a_backtest_that_ends_with_the_training_window(panel):
    w = walked(panel, {'features.mom.lookback':[20, 60]})
    assert w.purge>20 and all(o.test[0]-o.train[1]==w.purge and o.train[1]-o.train[0]==251 for o in w.windows)
    for i,win in enumerate(w.windows[:2]):
        a,b = panel.sessions[list(win.train)]
        for k,c in enumerate(w.cells):
            assert w.scores[i,k]==backtest(make_strategy(c.config, 'x'), panel.until(b), a, b).summary['strategy']['sharpe']
    assert chosen_again(w, len(w.windows))==[o.number for o in w.windows]


def test_variants_that_look_at_the_account(panel):
    "A turnover cap is asked date by date, with the holdings that the choice before has left"
    base = BASE | dict(portfolio=dict(kind='top_n_equal', n=3, constraints=dict(max_turnover=.2)))
    w = walked(panel, {'features.mom.lookback':[20, 120]}, base)
    assert w.result.strategy.uses_book and (np.diff(w.choices)!=0).any()
    turn = w.result.decisions.turnover_one_way.to_numpy()
    assert (turn[1:]<.2+.03).all() and turn[1:].max()>.15


def test_schedules_may_differ(panel):
    w = walked(panel, {'schedule':[dict(kind='monthly'), dict(kind='weekly')]})
    made = {w.cells[k].values['schedule']['kind'] for k in w.choices}
    assert w.purge==1+max(np.diff(np.searchsorted(panel.sessions, make_strategy(BASE, 'x').schedule.dates('2014-01-01', '2019-12-31'))))
    assert made<={'monthly', 'weekly'} and np.isfinite(w.lived).all()


def test_what_belongs_to_the_account_cannot_be_chosen(panel):
    with pytest.raises(ConfigError, match='belongs to the account'): walked(panel, {'costs.bps':[1, 2]},
        BASE | dict(costs=dict(kind='proportional', bps=5)))
    with pytest.raises(ConfigError, match='constraints differ'):
        walked(panel, {'portfolio.constraints.max_weight':[1., .5], 'portfolio.n':[1, 2, 3]})
    with pytest.raises(ParameterError, match='too few'): walked(panel, {'portfolio.n':[1, 2]}, train=5000)


def test_papermill_and_command(place, call):
    done = call('papermill', 'walkforward.ipynb', '-p', 'start', '2012-01-03', '-p', 'end', '2016-12-30', '-p', 'train', '504', '-p',
    'workers', '1',
        cwd=ROOT/'nbs')
    assert done.returncode==0, done.stderr
    assert done.stdout.startswith('result   Sharpe ratio') and 'SYNTHETIC' in done.stdout
    (folder,) = (Path(place['QUANTETF_RUNS'])/'walkforward').glob('*/demo_grid-*')
    data,nav = json.loads((folder/'walkforward.json').read_text()),pd.read_csv(folder/'nav.csv', index_col=0)
    assert len(nav)==data['sessions'] and {c['name']:c['status'] for c in data['checks']}['nested']=='PASS'
    ledger = (Path(place['QUANTETF_RUNS'])/'_trials'/'demo'/'trials.jsonl').read_text().splitlines()
    assert len(ledger)==30 and all(json.loads(o)['kind']=='walkforward' for o in ledger)
    done = call('quantetf', 'walkforward', 'demo_gird')
    assert done.returncode==1 and "did you mean 'demo_grid'" in done.stderr
