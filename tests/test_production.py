"""Production on awkward accounts and data: what is refused, what is blocked, what is said. Each case was once got wrong."""
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from quantetf.backtest.engine import backtest
from quantetf.backtest.run import report_data
from quantetf.core import ConfigError, DataError, IntegrityError, ParameterError, find_settings
from quantetf.data.schema import Tables
from quantetf.data.snapshot import open_snapshot, publish
from quantetf.production.checks import run_checks
from quantetf.production.packet import make_packet
from quantetf.production.proposal import propose
from quantetf.production.runtime import produce
from quantetf.report import backtest_page, production_page
from quantetf.strategy import load_strategy, make_strategy
from quantetf.universe import LevelError, require_levels

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


@pytest.fixture(scope='module')
def mixed(demo, settings):
    "The demo market with USL1 a total return before 2015 and as traded since, CMD1 mixed in years that nobody knows"
    t = dict(demo.tables.items())
    i = t['instruments']
    years = [('2006-01-03', 'total_return'), ('2015-01-02', 'as_traded')]
    eras = pd.DataFrame([dict(id='USL1', name='price_basis', effective=d, known_at=d, value=v) for d,v in years])
    tables = t | dict(instruments=i.assign(basis=i.basis.where(~i.id.isin(['USL1', 'CMD1']), 'mixed')), facts=pd.concat([t['facts'], eras]))
    return publish(Tables(**tables), 'mixed', settings, synthetic=True)


YEARS = r'USL1 \(total return 2006 to 2014; as traded 2015 to 20\d\d\)'


def test_mixed_prices_are_refused_where_they_matter(mixed):
    with pytest.raises(DataError, match=YEARS + r': prices are adjusted .*accept_mixed: \[USL1\]'):
        propose(strategy(tickers=['USL1', 'GLD1']), mixed, '2024-06-28')
    with pytest.raises(DataError, match='CMD1: prices are adjusted'): propose(strategy(tickers=['CMD1', 'GLD1']), mixed, '2024-06-28')
    assert propose(strategy(tickers=['GLD1', 'TEC1']), mixed, '2024-06-28').trades_now


def test_backtest_and_production_refuse_the_same(mixed):
    for tickers,accept in ((['USL1', 'GLD1'], []), (['USL1', 'CMD1'], ['CMD1']), (['USL1', 'CMD1'], ['USL1', 'CMD1', 'USLI'])):
        s = strategy(tickers=tickers, accept_mixed=accept)
        with pytest.raises((DataError, ConfigError)) as one: propose(s, mixed, '2024-06-28')
        with pytest.raises((DataError, ConfigError)) as other: backtest(s, mixed, '2020-01-02')
        assert str(one.value)==str(other.value)
    assert "accept_mixed: no fund 'USLI'" in str(one.value) and "did you mean 'USL1'?" in str(one.value)


def test_a_holding_with_mixed_prices_is_refused_too(mixed, tmp_path):
    mine,s = account(tmp_path, USL1=10, CASH=1000),strategy(tickers=['GLD1', 'TEC1'])
    with pytest.raises(DataError, match='USL1'): propose(s, mixed, '2024-06-28', mine)
    assert propose(replace(s, accept_mixed=('USL1',)), mixed, '2024-06-28', mine).trades_now


def test_what_was_accepted_is_repeated_as_a_warning(mixed):
    s = strategy(n=2, tickers=['USL1', 'GLD1'], accept_mixed=['USL1'])
    p = propose(s, mixed, '2024-06-28')
    packet = make_packet(p, run_checks(p), IDENTITY | dict(run_id='0'*64))
    page = production_page(packet)
    banner = re.search('<div class="banner WARN".*?</div>', page, re.S)[0]
    assert re.search(YEARS, re.sub('<[^>]*>', '', banner)) and 'accepted by name in the config' in banner
    assert packet['config']['accept_mixed']==['USL1'] and packet['status']=='published'
    result = backtest(s, mixed, '2020-01-02')
    data = report_data(result, mixed, IDENTITY | dict(run_id='0'*64))
    check = next(o for o in data['checks'] if o['name']=='mixed prices')
    assert check['status']=='WARN' and re.search(YEARS, check['evidence'])
    assert 'accepted by name in the config' in re.search('<div class="banner WARN".*?</div>', backtest_page(data), re.S)[0]


def test_shares_are_counted_in_years_that_are_as_traded(mixed, tmp_path):
    s = strategy(n=2, tickers=['USL1', 'GLD1'], accept_mixed=['USL1'])
    now,then = (propose(s, mixed, day) for day in ('2024-06-28', '2012-06-29'))
    assert now.share_note is None and (now.trade%1==0).all()
    assert 'prices are total return, not as traded' in then.share_note and (then.trade%1!=0).any()
    assert {o['delta_shares'] for o in make_packet(then, [], IDENTITY)['rows']}=={None}
    unknown = propose(strategy(n=1, tickers=['CMD1'], accept_mixed=['CMD1']), mixed, '2024-06-28')
    assert 'prices are mixed, not as traded' in unknown.share_note
    with pytest.raises(LevelError, match='a price of at least 5 needs prices as they were traded on the day .USL1 is total return'):
        require_levels(then.view, then.panel.ids=='USL1', 'a price of at least 5')


def test_late_funds_are_named_with_how_late_they_are(demo, settings, tmp_path):
    "GLD1 ends three sessions early, TEC1 one; USL1 is on time, CLN1 closed in 2016"
    t = dict(demo.tables.items())
    b,ends = t['bars'],dict(GLD1='2024-06-25', TEC1='2024-06-27')
    keep = (b.session<='2024-06-28') & ~sum((b.id==id) & (b.session>end) for id,end in ends.items()).astype(bool)
    cut = demo.until('2024-06-28')
    tables = dict(cut.tables.items()) | dict(bars=b[keep])
    late = publish(Tables(**tables), 'late', settings, synthetic=True)
    tickers = ['USL1', 'GLD1', 'TEC1', 'CLN1']
    def check(p): return next(o for o in run_checks(p) if o.name=='freshness')
    held = check(propose(strategy(n=1, tickers=tickers), late, '2024-06-28', account(tmp_path, GLD1=10, CASH=1000)))
    assert held.status=='BLOCK' and 'GLD1 (3 sessions behind, last bar 2024-06-25), held or to be held' in held.evidence
    assert 'CLN1' not in held.evidence and 'USL1' not in held.evidence
    p = propose(strategy(n=1, tickers=tickers), late, '2024-06-28')
    bought = {str(o) for o in p.panel.ids[p.trade!=0]}
    both = check(p)
    assert 'GLD1 (3 sessions' in both.evidence and 'TEC1 (1 session' in both.evidence
    assert both.status==('BLOCK' if bought & {'GLD1', 'TEC1'} else 'WARN')
    only = check(propose(strategy(n=1, tickers=['USL1', 'CLN1']), late, '2024-06-28'))
    assert (only.status, only.evidence)==('PASS', 'all 1 funds of the list that trade have a close on 2024-06-28')


@pytest.mark.parametrize('tickers,status', [(['USL1', 'GLD1'], 'WARN'), (['USL1', 'GLD1', 'CLN1'], 'PASS')])
def test_the_report_counts_the_dead(tickers, status, demo):
    data = report_data(backtest(strategy(tickers=tickers), demo, '2014-01-02', '2019-12-31'), demo, IDENTITY | dict(run_id='0'*64))
    check = next(o for o in data['checks'] if o['name']=='closures')
    assert check['status']==status and '1 of the 23 funds alive on 2014-01-02 had closed by 2019-12-31' in check['evidence']
    assert ('none of the 2 funds' if status=='WARN' else '1 of the 3 funds') in check['evidence']
    assert ('banner WARN' in (page := backtest_page(data)) and 'closures</a>' in page)==(status=='WARN')


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
    packet = produce('2024-06-28', settings=settings)
    rows,lines = json.loads((packet.folder/'recommendations.json').read_text())['rows'],pd.read_csv(packet.folder/'recommendations.csv')
    assert lines.ticker.tolist()==[o['ticker'] for o in rows] and len(rows)==5
    for k in 'target_weight', 'delta_shares', 'notional', 'price': np.testing.assert_allclose(lines[k], [o[k] for o in rows])
    total = lines.notional.sum() + lines.est_cost.sum()
    assert abs(packet.data['book']['cash'] - total - packet.data['after']['cash'])<.01
