"Sweeps: what crosses processes, and what a sweep of known markets finds"
import json
from pathlib import Path

import numpy as np
import pytest

from quantetf.backtest.engine import backtest
from quantetf.calendars import sessions_between
from quantetf.core import ConfigError, find_settings
from quantetf.data.view import Panel
from quantetf.evaluation.compare import components_of
from quantetf.evaluation.sweep import run_sweep
from quantetf.evaluation.variants import grid_cells, make_sweep, run_cells, shared_prices, sharing
from quantetf.runs import code_hash
from quantetf.strategy import make_strategy

ROOT = Path(__file__).resolve().parent.parent
BASE = dict(universe=dict(kind='static', tickers=list('ABCDEF')), features=dict(mom=dict(kind='momentum', lookback=40, skip=2)),
    alpha=dict(kind='rank', feature='mom'), portfolio=dict(kind='top_n_equal', n=2), benchmark='A')


@pytest.fixture(scope='module')
def panel():
    days,rng = sessions_between('2018-01-01', '2020-12-31'),np.random.default_rng(3)
    tr = 50*np.cumprod(1+rng.normal(.0003, .01, (len(days), 6)), axis=0)
    return Panel(days, list('ABCDEF'), dict(close=tr, tr=tr))


@pytest.mark.parametrize('portfolio', [dict(kind='top_n_equal', n=2), dict(kind='top_n_equal', n=2, constraints=dict(max_turnover=.2)),
    dict(kind='tranches', k=3, of=dict(kind='top_n_equal', n=2))])
def test_shared_signals_decide_as_the_plain_strategy_does(panel, portfolio):
    "Also where the account is asked, and where earlier dates are looked at"
    for n in 2, 3: # The second finds what the first has left behind
        config = BASE | dict(portfolio=json.loads(json.dumps(portfolio).replace('"n": 2', f'"n": {n}')))
        s = make_strategy(config, 'x')
        a,b = backtest(s, panel, capital=1e6),backtest(sharing(s), panel, capital=1e6)
        assert a.nav.tobytes()==b.nav.tobytes() and a.decision.weights.tobytes()==b.decision.weights.tobytes()


def test_features_that_differ_are_not_shared(panel):
    a,b = (backtest(sharing(make_strategy(BASE | dict(features=dict(mom=dict(kind='momentum', lookback=k, skip=2))), 'x')), panel,
        '2018-09-28') for k in (40, 90))
    assert not np.allclose(np.nan_to_num(a.decision.signals.scores), np.nan_to_num(b.decision.signals.scores))


def test_cells_begin_when_the_last_of_them_can_decide(panel):
    sweep = make_sweep(dict(strategy='x', vary={'features.mom.lookback':[20, 200]}), 'two')
    a,b = run_cells(grid_cells(sweep, BASE), shared_prices(panel))
    alone = backtest(make_strategy(BASE | dict(features=dict(mom=dict(kind='momentum', lookback=200, skip=2))), 'x'), panel)
    assert a['start']==b['start']==str(alone.sessions[0])
    assert len(a['returns'])==len(b['returns'])
    assert np.array_equal(b['returns'], alone.returns)


def test_a_cell_that_fails_at_the_engine_says_why(panel):
    "The second benchmark is a fund that has no price at the beginning"
    close = panel._fields['close'].copy()
    close[:400,1] = np.nan
    late = Panel(panel.sessions, panel.ids, dict(close=close, tr=close))
    sweep = make_sweep(dict(strategy='x', vary={'benchmark':['A', 'B']}), 'late')
    r = run_sweep(sweep, BASE, make_strategy(BASE, 'x'), late, start='2018-06-29')
    (cell,why), = r.failed
    assert cell.values=={'benchmark':'B'} and 'benchmark B has no price on 2018-06-29' in why
    assert r.cells[r.best].values=={'benchmark':'A'} and np.isnan(r.returns[:,1]).all() and why in r.table.problem[1]


def test_a_misspelt_key_is_refused_before_anything_runs():
    with pytest.raises(ConfigError, match='did you mean'): grid_cells(make_sweep(dict(strategy='x', vary={'portfolio.nn':[1, 2]})), BASE)
    with pytest.raises(ConfigError, match="unknown key"): make_sweep(dict(strategy='x', vary={'portfolio.n':[1]}, sampel=3))
    with pytest.raises(ConfigError): make_sweep(dict(strategy='x', vary=['portfolio.n']))


def test_a_large_grid_is_drawn_and_not_built(panel):
    values = list(range(1, 1001))
    vary = {'features.mom.lookback':[v+20 for v in values], 'costs.bps':values, 'features.mom.skip':[1, 2, 3]}
    base = BASE | dict(costs=dict(kind='proportional', bps=1))
    assert len(grid_cells(make_sweep(dict(strategy='x', vary=vary, sample=5)), base))==5
    with pytest.raises(ConfigError, match='draw some of them'): grid_cells(make_sweep(dict(strategy='x', vary=vary)), base)


def test_papermill_and_command(place, call):
    done = call('papermill', 'compare.ipynb', '-p', 'sweep', 'configs/sweeps/demo_grid.yaml', '-p', 'start', '2021-01-04', '-p', 'end',
        '2022-12-30',
        '-p', 'workers', '1', cwd=ROOT/'nbs')
    assert done.returncode==0, done.stderr
    assert done.stdout.startswith('result   The best of 30 variants') and 'SYNTHETIC' in done.stdout
    (folder,) = (Path(place['QUANTETF_RUNS'])/'compare').glob('*/demo_grid-*')
    data,returns = json.loads((folder/'compare.json').read_text()),np.load(folder/'returns.npy')
    assert returns.shape==(data['sessions'], 30) and data['failed']==0 and 'SYNTHETIC' in (folder/'report.html').read_text()
    ledger = (Path(place['QUANTETF_RUNS'])/'_trials'/'demo'/'trials.jsonl').read_text().splitlines()
    assert len(ledger)==30 and all(json.loads(o)['kind']=='sweep' for o in ledger)
    done = call('quantetf', 'compare', '--sweep', 'demo_gird')
    assert done.returncode==1 and "did you mean 'demo_grid'" in done.stderr and done.stderr.count('\n')==1
    done = call('quantetf', 'compare')
    assert done.returncode==1 and 'give either sweep' in done.stderr


def test_the_code_of_a_variant_is_code_of_the_sweep(tmp_path, monkeypatch):
    "An edited class of one's own is another run, also where only a variant uses it"
    (tmp_path/'my_rank.py').write_text('from dataclasses import dataclass\n\n@dataclass(frozen=True)\nclass Mine:\n'
        '    feature:str = "mom"\n'
        '    def score(self, view, universe, features): return -features[self.feature]\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    sweep = make_sweep(dict(strategy='x', vary={'alpha':[dict(kind='rank', feature='mom'), dict(kind='my_rank:Mine')]}), 'mine')
    found = components_of(sweep, BASE, make_strategy(BASE, 'x'), find_settings(ROOT, environ={}))
    assert 'Mine' in {type(o).__name__ for o in found}
    assert code_hash(components=found)!=code_hash(components=make_strategy(BASE, 'x').components)
