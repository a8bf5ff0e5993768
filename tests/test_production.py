"""Production on awkward accounts and data: what is refused, what is blocked, what is said. Each case was once got wrong."""
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quantetf.core import ConfigError, DataError, IntegrityError, ParameterError, find_settings
from quantetf.data.schema import Tables
from quantetf.data.snapshot import open_snapshot, publish
from quantetf.production.packet import make_packet
from quantetf.production.proposal import propose
from quantetf.production.runtime import produce
from quantetf.strategy import load_strategy, make_strategy

ROOT = Path(__file__).resolve().parent.parent
IDENTITY = dict(run_id='0', hashes={}, versions={}, previous=None, currency='USD')


@pytest.fixture(scope='module')
def settings(tmp_path_factory):
    place = tmp_path_factory.mktemp('production')
    return replace(find_settings(ROOT, environ={}), data=place/'data', runs=place/'runs')


@pytest.fixture(scope='module')
def demo(settings): return open_snapshot('demo', settings)


def strategy(n=1, tickers=('CLN1', 'USL1'), **more):
    return make_strategy(dict(universe=dict(kind='static', tickers=list(tickers)), features=dict(mom=dict(kind='momentum')),
        alpha=dict(kind='rank', feature='mom'), portfolio=dict(kind='top_n_equal', n=n)) | more, 'case')


def account(folder, **lines):
    (folder/'mine.csv').write_text('ticker,shares\n' + ''.join(f'{k},{v}\n' for k,v in lines.items()))
    return folder/'mine.csv'


def test_a_fund_is_sold_and_not_bought_on_its_last_session(demo, tmp_path):
    p = propose(strategy(), demo, '2016-05-20', account(tmp_path, CLN1=100, CASH=1000), force=True)
    ids = p.panel.ids.tolist()
    assert p.trade[ids.index('CLN1')]==-100 and p.target[ids.index('CLN1')]==0
    assert p.decision.signals.universe.reason[0,ids.index('CLN1')]=='closed'


def test_a_holding_that_has_closed_is_named_with_its_proceeds(demo, tmp_path):
    with pytest.raises(DataError, match=r'CLN1 is held and closed on 2016-05-20; enter its proceeds, [\d.]+ a share, as CASH'):
        propose(strategy(), demo, '2016-05-31', account(tmp_path, CLN1=100, CASH=1000))


def test_mixed_prices_are_refused_where_they_matter(demo, settings):
    t = dict(demo.tables.items())
    basis = t['instruments'].basis.where(t['instruments'].id!='USL1', 'mixed')
    mixed = publish(Tables(**(t | dict(instruments=t['instruments'].assign(basis=basis)))), 'mixed', settings, synthetic=True)
    with pytest.raises(DataError, match='USL1: prices are adjusted in some years and not in others'):
        propose(strategy(tickers=['USL1', 'GLD1']), mixed, '2024-06-28')
    assert propose(strategy(tickers=['GLD1', 'TEC1']), mixed, '2024-06-28').trades_now


def test_nothing_is_said_to_be_held_that_cannot_be_bought(settings):
    packet = produce('2024-06-28', capital=20., settings=settings)
    assert {o['action'] for o in packet.data['rows']}=={'none'} and packet.data['totals']['trades']==0
    assert all('one share costs more' in o['reason'] for o in packet.data['rows'])
    assert next(o['status'] for o in packet.data['checks'] if o['name']=='rounding')=='WARN'
    assert 'Nothing can be bought' in packet.report.read_text() and 'agree within' not in packet.report.read_text()


def test_more_funds_than_the_list_has_are_refused():
    with pytest.raises(ConfigError, match='3 funds are wanted, the list has 2'): strategy(n=3)


def test_a_renamed_fund_is_one_line_in_the_difference(demo):
    "HYB1 trades as HYD1 since 2011-03-21"
    both = [make_packet(propose(strategy(tickers=['HYB1']), demo, day), [], IDENTITY) for day in ('2011-02-28', '2011-03-31')]
    assert [o['rows'][0]['ticker'] for o in both]==['HYB1', 'HYD1']
    again = make_packet(propose(strategy(tickers=['HYB1']), demo, '2011-03-31'), [], IDENTITY, both[0])
    assert again['diff']==[dict(ticker='HYD1', previous_target=1.0, target=1.0, change=0.0)]


@pytest.mark.parametrize('lines,words', [('ticker;shares\nUSL1;3', 'needs the columns ticker,shares'), ('', 'needs the columns'),
    ('ticker,shares\nUSL1,-2\nCASH,1', 'short positions'), ('ticker,shares\nUSL1,3', 'a line CASH'),
    ('Ticker, Shares\nUSL,3\nCASH,1', 'did you mean')])
def test_holdings_that_cannot_be_used(lines, words, demo, tmp_path):
    (tmp_path/'mine.csv').write_text(lines)
    with pytest.raises((ParameterError, ConfigError), match=words): propose(strategy(), demo, '2024-06-28', tmp_path/'mine.csv')


def test_a_damaged_packet_is_noticed_before_it_counts_as_published(settings):
    first = produce('2024-04-30', settings=settings)
    assert not produce('2024-04-30', settings=settings).run.fresh
    (first.folder/'report.html').write_text('other')
    with pytest.raises(IntegrityError, match=r'report\.html is not what was published'): produce('2024-04-30', settings=settings)


def test_a_component_of_ones_own_lies_beside_the_settings(settings, tmp_path):
    (tmp_path/'strategies').mkdir()
    (tmp_path/'own_signals.py').write_text('from dataclasses import dataclass\n\n'
        '@dataclass(frozen=True)\nclass Reversal:\n    days:int=21\n'
        "    def compute(self, view, universe=None): return 1 - view.lag('tr')/view.lag('tr', self.days)\n\nclass Plain: pass\n")
    text = '''universe: {kind: static, tickers: [USL1, GLD1, TEC1]}
features: {rev: {kind: "own_signals:Reversal", days: 5}}
alpha: {kind: rank, feature: rev}
portfolio: {kind: top_n_equal, n: 1}
'''
    (tmp_path/'strategies'/'own.yaml').write_text(text)
    own = replace(settings, root=tmp_path, configs=tmp_path)
    data = produce('2024-06-28', 'own', settings=own).data
    assert data['config']['features']['rev']=={'kind':'own_signals:Reversal', 'days':5} and data['totals']['trades']==1
    (tmp_path/'strategies'/'own.yaml').write_text(text.replace('Reversal', 'Plain').replace(', days: 5', ''))
    with pytest.raises(ConfigError, match='decorated with @dataclass'): load_strategy('own', own)


def test_the_csv_says_what_the_json_says(settings):
    import pandas as pd
    packet = produce('2024-06-28', settings=settings)
    rows,lines = json.loads((packet.folder/'recommendations.json').read_text())['rows'],pd.read_csv(packet.folder/'recommendations.csv')
    assert lines.ticker.tolist()==[o['ticker'] for o in rows] and len(rows)==5
    for k in 'target_weight', 'delta_shares', 'notional', 'price': np.testing.assert_allclose(lines[k], [o[k] for o in rows])
    total = lines.notional.sum() + lines.est_cost.sum()
    assert abs(packet.data['book']['cash'] - total - packet.data['after']['cash'])<.01
