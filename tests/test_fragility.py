"Fragility: what crosses processes, and answers that can be had in another way"
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quantetf.backtest.engine import backtest
from quantetf.calendars import sessions_between
from quantetf.core import DataError, ParameterError
from quantetf.data.view import Panel
from quantetf.evaluation.fragility import Through, _as, decision_fragility, fragility, noisy
from quantetf.strategy import make_strategy

ROOT = Path(__file__).resolve().parent.parent
BASE = dict(universe=dict(kind='static', tickers=list('ABCDEF')), features=dict(mom=dict(kind='momentum', lookback=40, skip=2)),
    alpha=dict(kind='rank', feature='mom'), portfolio=dict(kind='top_n_equal', n=2), benchmark='A', costs=dict(kind='proportional', bps=10))


@pytest.fixture(scope='module')
def panel():
    days,rng = sessions_between('2016-01-01', '2019-12-31'),np.random.default_rng(3)
    tr = 50*np.cumprod(1+rng.normal(.0003, .01, (len(days), 6)), axis=0)
    return Panel(days, list('ABCDEF'), dict(close=tr, tr=tr))


@pytest.fixture(scope='module')
def found(panel): return fragility(make_strategy(BASE, 'x'), panel, draws=3)


def test_each_offset_is_a_backtest_on_listed_dates(panel, found):
    a,b = panel.sessions[list(found.rows)]
    due = make_strategy(BASE, 'x').schedule.dates(a-60, b)
    for k in 1, 9, 20:
        rows = np.searchsorted(panel.sessions, due) + k
        days = panel.sessions[rows[rows<=found.rows[1]]]
        listed = BASE | dict(schedule=dict(kind='explicit', on=[str(d) for d in days if d>=a]))
        r = backtest(make_strategy(listed, 'x'), panel, a, b)
        assert np.array_equal(found.of('offset')[k][2]['nav'], r.nav)


def test_doubled_costs_and_one_fund_less_are_what_a_config_would_say(panel, found):
    a,b = panel.sessions[list(found.rows)]
    twice = backtest(make_strategy(BASE | dict(costs=dict(kind='proportional', bps=20)), 'x'), panel, a, b).nav
    assert np.allclose(found.of('costs')[0][2]['nav'], twice, rtol=1e-12)
    fewer = backtest(make_strategy(BASE | dict(universe=dict(kind='static', tickers=list('ABDEF'))), 'x'), panel, a, b).nav
    (nav,) = [o['nav'] for t,_,o in found.of('without') if t['id']=='C']
    assert np.array_equal(nav, fewer)


def test_noise_is_seen_and_not_traded(panel, found):
    "With errors of size zero nothing changes; with others the account still trades at the true prices"
    a,b = panel.sessions[list(found.rows)]
    s = make_strategy(BASE, 'x')
    same = backtest(_as(Through, s, lens=noisy(panel, 0.)), panel, a, b)
    assert same.nav.tobytes()==found.of('nothing')[0][2]['nav'].tobytes()
    off = backtest(_as(Through, s, lens=noisy(panel, 300., 1)), panel, a, b)
    k,j = np.nonzero(off.account.trades)
    assert np.array_equal(off.account.price[k,j], panel._fields['close'][off.account.fills[k],j])
    assert (off.decision.weights!=same.decision.weights).any()


def test_a_fund_without_which_nothing_can_be_decided_fails_with_its_reason(panel):
    few = BASE | dict(universe=dict(kind='static', tickers=['A', 'B']), portfolio=dict(kind='top_n_equal', n=2))
    found = fragility(make_strategy(few, 'x'), panel, draws=1)
    assert {t['id'] for t,_ in found.failed}=={'A', 'B'} and all('can never decide' in why for _,why in found.failed)
    with pytest.raises(ParameterError, match='too few'):
        fragility(make_strategy(BASE, 'x'), panel, '2019-09-02', draws=1)


def test_a_decision_that_holds_cannot_flip(panel):
    s = make_strategy(BASE, 'x')
    with pytest.raises(DataError, match='no decision that could flip'): decision_fragility(s, panel, panel.sessions[10])
    far = replace(s, features=dict(mom=replace(s.features['mom'], lookback=60)))
    a,b = (decision_fragility(far, panel, '2018-06-29', draws=20, bps=o) for o in (.001, .001))
    assert a==b and {o['held'] for o in a['funds'] if o['weight']>0}=={1.}


def test_papermill_and_command(place, call):
    given = dict(start='2019-01-02', end='2021-12-31', draws=2, workers=1)
    done = call('papermill', 'fragility.ipynb', *(o for k,v in given.items() for o in ('-p', k, v)), cwd=ROOT/'nbs')
    assert done.returncode==0, done.stderr
    assert 'on another rebalance day' in done.stdout and 'SYNTHETIC' in done.stdout
    (folder,) = (Path(place['QUANTETF_RUNS'])/'fragility').glob('*/demo_momentum-*')
    data = json.loads((folder/'fragility.json').read_text())
    assert len(data['offsets'])==21 and data['failed']==0 and not (Path(place['QUANTETF_RUNS'])/'_trials').exists()
    done = call('quantetf', 'fragility', '--strategy', 'demo_momentun')
    assert done.returncode==1 and 'demo_momentum' in done.stderr
