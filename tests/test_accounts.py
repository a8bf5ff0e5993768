"""Several strategies in one account: what is netted, where each trade comes from, and that a packet and a backtest agree."""
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quantetf.backtest.engine import backtest
from quantetf.core import ConfigError, ParameterError, find_settings
from quantetf.data.snapshot import open_snapshot
from quantetf.production.proposal import propose
from quantetf.production.runtime import produce
from quantetf.production.status import due_of, status
from quantetf.production.verify import verify
from quantetf.sleeves import load_account, strategy_of
from quantetf.strategy import load_strategy

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='module')
def settings(tmp_path_factory):
    place = tmp_path_factory.mktemp('accounts')
    return replace(find_settings(ROOT, environ={}), data=place/'data', runs=place/'runs')


@pytest.fixture(scope='module')
def demo(settings): return open_snapshot('demo', settings)


@pytest.fixture(scope='module')
def family(settings): return load_account('demo_family', settings)


def test_the_account_wants_the_sum_of_its_sleeves(settings, demo, family):
    p = propose(family, demo, '2024-06-28')
    parts = [load_strategy(o, settings).decide(p.view).weights[0] for o in ('demo_momentum', 'demo_bonds')]
    both = .65*parts[0] + .35*parts[1]
    assert both.max()>.3 and np.abs(p.target-np.minimum(both, .3)).max()<1e-12 and p.decision.binding[0][0]=='max_weight'


def test_a_backtest_of_the_account_decides_like_its_packet(demo, family):
    result = backtest(family, demo, '2023-01-03', '2024-12-31')
    k = int(np.flatnonzero(result.panel.sessions[result.rows]==np.datetime64('2024-06-28'))[0])
    assert np.array_equal(result.decision.weights[k], propose(family, demo.until('2024-06-28'), '2024-06-28').target)
    assert result.conserved()<1e-9


def test_netted_orders_are_those_of_the_sum_and_each_is_traced(settings, tmp_path):
    may = produce('2024-05-31', account='demo_family', settings=settings)
    held = [f"{o['instrument_id']},{o['target_shares']:g}," for o in may.data['rows'] if o['target_shares']]
    (tmp_path/'mine.csv').write_text('\n'.join(['ticker,shares,date', 'AS_OF,,2024-05-31', *held, f"CASH,{may.data['after']['cash']},"]))
    june = produce('2024-06-28', account='demo_family', holdings=str(tmp_path/'mine.csv'), settings=settings)
    assert june.data['previous']['run_id']==may.run_id
    assert next(o['status'] for o in june.data['checks'] if o['name']=='reconciliation')=='PASS'
    then = {o['instrument_id']:o['target_weight'] for o in may.data['rows']}
    for o in june.data['rows']:
        assert [s['strategy'] for s in o['sleeves']]==['demo_bonds', 'demo_momentum']
        assert all(s['strategy'] in o['reason'] for s in o['sleeves'])
        now,before = (sum(s[k] for s in o['sleeves']) for k in ('contribution', 'previous_contribution'))
        assert o['target_weight']==pytest.approx(min(now, .3), abs=1e-8) and ('max_weight' in o['reason'])==(now>.3)
        assert then.get(o['instrument_id'], 0)==pytest.approx(min(before, .3), abs=1e-8)
        assert all(s['contribution']==pytest.approx(s['part']*s['weight'], abs=1e-9) for s in o['sleeves'])
    orders = [o for o in june.data['rows'] if o['order']]
    buys = [o['notional']>0 for o in orders]
    assert len({o['instrument_id'] for o in orders})==len(orders) and buys==sorted(buys)
    for o in may,june: assert (found := verify(o.folder, settings)).ok, found
    why = june.data['attribution']
    assert why['changed']['market_days'] and not why['changed']['config'] and not why['changed']['universe']
    page = june.report.read_text()
    assert 'demo_bonds' in page and june.data['sleeves'][1]['part']==.65


def test_the_manifest_is_enough_to_have_the_account_again(settings, demo):
    packet = produce('2024-06-28', account='demo_family', settings=settings)
    config = json.loads((packet.folder/'manifest.json').read_text())['inputs']['config']
    again = propose(strategy_of(config, 'demo_family'), demo, '2024-06-28')
    assert {str(i):w for i,w in zip(again.panel.ids, again.target) if w}=={o['instrument_id']:pytest.approx(o['target_weight'], abs=1e-9)
        for o in packet.data['rows'] if o['target_weight']}


def test_a_turnover_limit_of_the_account_is_kept(settings, demo, family, tmp_path):
    (tmp_path/'mine.csv').write_text('ticker,shares,date\nAS_OF,,2024-06-28\nGVS1,900,\nCASH,1000,\n')
    from quantetf.constraints import Constraints
    limited = replace(family, portfolio=replace(family.portfolio, constraints=Constraints(max_turnover=.1)))
    free,tight = (propose(o, demo, '2024-06-28', tmp_path/'mine.csv').turnover_one_way for o in (family, limited))
    assert free>.5 and .08<tight<=.1005


def test_what_cannot_be_an_account(settings, tmp_path):
    (tmp_path/'accounts').mkdir()
    (tmp_path/'strategies').mkdir()
    mine = replace(settings, configs=tmp_path)
    (tmp_path/'accounts'/'one.yaml').write_text('sleeves: {none: 0.5}\n')
    with pytest.raises(ConfigError, match='no strategy'): load_account('one', mine)
    with pytest.raises(ConfigError, match="no account 'on'; did you mean 'one'"): load_account('on', mine)
    (tmp_path/'strategies'/'one.yaml').write_text('x: 1\n')
    with pytest.raises(ConfigError, match='an account and a strategy'): load_account('one', mine)
    with pytest.raises(ConfigError, match='no account'): load_account('../strategies/one', mine)
    text = (settings.configs/'strategies'/'demo_momentum.yaml').read_text()
    (tmp_path/'strategies'/'careful.yaml').write_text(text + '\naccount: {restricted: [TIP1]}\n')
    (tmp_path/'universes').mkdir()
    for o in (settings.configs/'universes').glob('*.yaml'): (tmp_path/'universes'/o.name).write_text(o.read_text())
    (tmp_path/'accounts'/'two.yaml').write_text('sleeves: {careful: 0.5}\n')
    with pytest.raises(ConfigError, match='careful has a section account of its own'): load_account('two', mine)
    with pytest.raises(ParameterError, match='not both'): produce('2024-06-28', 'demo_momentum', account='demo_family', settings=settings)


def test_an_account_is_due_like_a_strategy(settings):
    produce('2024-07-31', account='demo_family', settings=settings)
    due = due_of('demo_family', settings, '2024-08-05')
    assert (str(due.last), due.done, str(due.next))==('2024-07-31', True, '2024-08-30')
    assert status('demo_family', settings).due.strategy=='demo_family'
