"""Accounts between their own date and a decision: splits both ways, closures, what arrives when, and funding in phases."""
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quantetf.backtest.engine import backtest
from quantetf.core import ConfigError, DataError, find_settings
from quantetf.data.snapshot import open_snapshot
from quantetf.data.view import load_panel
from quantetf.production.holdings import HoldingsError, read_statement, recorded_account, rolled
from quantetf.production.proposal import propose
from quantetf.production.runtime import produce
from quantetf.strategy import Execution, make_strategy

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='module')
def settings(tmp_path_factory):
    place = tmp_path_factory.mktemp('holdings')
    return replace(find_settings(ROOT, environ={}), data=place/'data', runs=place/'runs')


@pytest.fixture(scope='module')
def demo(settings): return open_snapshot('demo', settings)


@pytest.fixture(scope='module')
def panel(demo): return load_panel(demo)


@pytest.fixture
def after(panel, tmp_path):
    "Rolls a file to a date"
    def roll(to, *lines, rules=None, name='mine.csv'):
        (tmp_path/name).write_text('\n'.join(['ticker,shares,date,locked', *lines]))
        day = np.datetime64(to)
        return rolled(read_statement(tmp_path/name, panel, day), panel, day, rules or Execution(), name=name)
    return roll


def held(a, panel, id): return a.book.shares[panel.ids.tolist().index(id)]
def strategy(n=3, **more):
    four = dict(kind='static', tickers=['USL1', 'GLD1', 'TEC1', 'EMG1'])
    return make_strategy(dict(universe=four, features=dict(mom=dict(kind='momentum')), alpha=dict(kind='rank', feature='mom'),
        portfolio=dict(kind='top_n_equal', n=n, constraints=dict(cash_buffer=.01))) | more, 'case')


def test_a_reverse_split_leaves_cash_for_the_fraction(after, panel):
    "CMD1 becomes one for four on 2013-03-11: 42 shares are 10, and half a share is paid at that close"
    a = after('2013-03-11', 'AS_OF,,2013-03-08,', 'CMD1,42,,8', 'CASH,0,,')
    price = panel.view('2013-03-11').series('close', 'CMD1', 1)[0,0]
    assert held(a, panel, 'CMD1')==10 and a.book.cash==pytest.approx(.5*price) and a.locked.max()==2
    b = after('2013-03-11', 'AS_OF,,2013-03-08,', 'CMD1,42,,', 'CASH,0,,', rules=Execution(shares='fractional'))
    assert held(b, panel, 'CMD1')==10.5 and b.book.cash==0


def test_a_split_doubles_what_is_held_and_locked(after, panel):
    a = after('2014-06-17', 'AS_OF,,2014-06-16,', 'TEC1,7,,3', 'CASH,0,,')
    assert held(a, panel, 'TEC1')==14 and a.locked.max()==6
    assert held(after('2014-06-17', 'AS_OF,,2014-06-17,', 'TEC1,7,,', 'CASH,0,,'), panel, 'TEC1')==7


def test_a_fund_that_closes_on_the_way_is_paid_out(after, panel):
    a = after('2016-05-31', 'AS_OF,,2016-05-20,', 'CLN1,10,,', 'CASH,100,,')
    assert held(a, panel, 'CLN1')==0 and a.book.cash==pytest.approx(100+736, abs=.2) and 'closed and was paid out' in ' '.join(a.changes)
    with pytest.raises(DataError, match=r'mine\.csv: CLN1 is held and closed on 2016-05-20; enter its proceeds, 73\.60'):
        after('2016-05-31', 'AS_OF,,2016-05-23,', 'CLN1,10,,', 'CASH,100,,')


def test_what_is_pending_counts_from_its_day(after):
    "Friday the 28th; the orders are filled on Monday the 1st"
    def of(*lines): return after('2024-06-28', 'AS_OF,,2024-06-28,', 'CASH,100,,', *lines).book
    for line,cash,owed in (('UNSETTLED,50,2024-07-01,', 150, 0), ('UNSETTLED,50,2024-07-02,', 100, 50), ('UNSETTLED,50,,', 100, 50),
        ('UNSETTLED,-30,2024-07-02,', 70, 0), ('OWED,5,2024-07-08,', 100, 5)): assert (of(line).cash, of(line).owed)==(cash, owed), line


def test_a_weekend_deposit_arrives_on_the_next_session(after):
    a = after('2024-06-10', 'AS_OF,,2024-06-07,', 'CASH,100,,', 'DEPOSIT,50,2024-06-08,')
    assert a.book.cash==pytest.approx(150, abs=.1)
    with pytest.raises(HoldingsError, match='takes more than there is in cash'):
        after('2024-06-14', 'AS_OF,,2024-06-07,', 'USL1,10,,', 'CASH,100,,', 'WITHDRAWAL,150,2024-06-12,')


def test_tickers_mean_what_they_meant_on_the_date_of_the_file(after, panel):
    "HYB1 trades as HYD1 since 2011-03-21"
    a,b = (after('2011-03-31', f'AS_OF,,{d},', f'{o},10,,', 'CASH,0,,') for d,o in (('2011-03-18', 'HYB1'), ('2011-03-22', 'HYD1')))
    assert held(a, panel, 'HYB1')==held(b, panel, 'HYB1')==10


def test_fractions_need_a_strategy_that_allows_them(after, panel):
    with pytest.raises(HoldingsError, match=r'mine\.csv, line 3: 10\.5 shares of USL1'):
        after('2024-06-28', 'AS_OF,,2024-06-28,', 'USL1,10.5,,', 'CASH,0,,')
    assert held(after('2024-06-28', 'USL1,10.5,,', 'CASH,0,,', rules=Execution(shares='fractional')), panel, 'USL1')==10.5


def test_a_record_is_enough_to_have_it_again(after, panel):
    a = after('2024-06-28', 'AS_OF,,2024-05-31,', 'USL1,10,,4', 'TIP1,50,,', 'CASH,77.7,,', 'OWED,3.3,2024-07-09,')
    again = recorded_account(a.record(panel), panel, np.datetime64('2024-06-28'))
    assert again.record(panel)==a.record(panel) and (again.book.price==a.book.price).all() and again.book.nav==a.book.nav


def test_the_dividends_owed_are_not_spent(demo, tmp_path):
    "The engine sizes orders by holdings and cash; so does a packet"
    (tmp_path/'mine.csv').write_text('ticker,shares,date\nAS_OF,,2024-06-28\nCASH,10000,\nOWED,5000,2024-07-08\n')
    (tmp_path/'cash.csv').write_text('ticker,shares,date\nAS_OF,,2024-06-28\nCASH,10000,\n')
    a,b = (propose(strategy(), demo, '2024-06-28', tmp_path/o) for o in ('mine.csv', 'cash.csv'))
    assert a.book.nav==15000 and (a.trade==b.trade).all()


def test_funding_in_phases_is_the_same_in_backtest_and_production(demo):
    "A fifth of the account on each date, until the targets are reached; then as with any turnover limit"
    def of(first): return strategy(portfolio=dict(kind='top_n_equal', n=2, constraints=dict(max_turnover=.2, first_purchase=first)))
    phased,exempt = of('phased'),of('exempt')
    result = backtest(phased, demo, '2024-01-02', '2024-12-31')
    invested = 1-result.target_weights.cash.to_numpy()
    assert invested[0]==pytest.approx(.2) and np.all(np.diff(invested[:4])>.1) and invested[-1]>.8
    assert 1-backtest(exempt, demo, '2024-01-02', '2024-12-31').target_weights.cash.to_numpy()[0]==pytest.approx(1)
    assert result.decisions.turnover_one_way.max()<=.2*1.01 # Of fills on the next session
    p = propose(phased, demo, '2024-01-31')
    assert np.array_equal(p.target, result.decision.weights[0]) and p.turnover_one_way<=.2*1.002
    assert propose(exempt, demo, '2024-01-31').turnover_one_way>.97


def test_phased_needs_a_limit():
    with pytest.raises(ConfigError, match='phased needs max_turnover'):
        strategy(portfolio=dict(kind='top_n_equal', n=2, constraints=dict(first_purchase='phased')))


def test_a_restricted_fund_is_neither_bought_nor_sold(demo, tmp_path):
    cash = propose(strategy(), demo, '2024-06-28')
    ids = cash.panel.ids.tolist()
    out = next(o for o in ('USL1', 'GLD1', 'TEC1', 'EMG1') if not cash.trade[ids.index(o)])
    bought = str(cash.panel.ids[np.argmax(cash.trade)])
    (tmp_path/'mine.csv').write_text(f'ticker,shares,date\nAS_OF,,2024-06-28\n{out},100,\nCMD1,30,\nCASH,50000,\n')
    free = propose(strategy(), demo, '2024-06-28', tmp_path/'mine.csv')
    assert free.trade[ids.index(out)]==-100 and free.trade[ids.index('CMD1')]==-30
    shut = propose(strategy(account=dict(restricted=[out, bought], outside='keep')), demo, '2024-06-28', tmp_path/'mine.csv')
    assert (shut.trade[[ids.index(o) for o in (out, bought, 'CMD1')]]==0).all() and shut.cash_after>0
    assert (shut.target<=np.maximum(free.target, free.book.weights)+1e-12).all() and shut.target.sum()<=free.target.sum()
    with pytest.raises(ConfigError, match=r'case: account\.restricted: no fund .EMG. .*did you mean'):
        propose(strategy(account=dict(restricted=['EMG'])), demo, '2024-06-28')


def test_the_packet_says_how_the_account_came_about(settings, tmp_path):
    (tmp_path/'mine.json').write_text('{"as_of": "2024-05-31", "positions": {"USL1": 20}, "cash": 90000}')
    packet = produce('2024-06-28', holdings=str(tmp_path/'mine.json'), settings=settings)
    assert packet.data['book']['source']=='mine.json of 2024-05-31, brought forward 19 sessions'
    check = next(o for o in packet.data['checks'] if o['name']=='holdings')
    assert 'cash earned' in check['evidence'] and packet.run.manifest['inputs']['book']['since']=='2024-05-31'


def test_locked_shares_stay_and_the_rest_is_planned_around_them(demo, tmp_path):
    cash = propose(strategy(), demo, '2024-06-28')
    ids = cash.panel.ids.tolist()
    out = next(o for o in ('USL1', 'GLD1', 'TEC1', 'EMG1') if not cash.trade[ids.index(o)])
    def of(locked):
        (tmp_path/'mine.csv').write_text(f'ticker,shares,date,locked\nAS_OF,,2024-06-28,\n{out},300,,{locked}\nCASH,60000,,\n')
        return propose(strategy(), demo, '2024-06-28', tmp_path/'mine.csv')
    free,part,all_ = of(''),of(200),of('all')
    assert [o.trade[ids.index(out)] for o in (free, part, all_)]==[-300, -100, 0]
    for o in part,all_:
        worth = o.kept@o.book.price/o.book.nav
        assert o.target.sum()==pytest.approx(free.target.sum()) and o.target[ids.index(out)]==pytest.approx(worth)
        left = (o.book.shares+o.trade)*o.book.price/(o.book.nav-o.cost.sum())
        assert np.abs(left-o.target)[o.target>0].max()<.01 and o.cash_after>=.01*(o.book.nav-o.cost.sum())*.9999


@pytest.fixture
def braked(): return strategy(portfolio=dict(kind='top_n_equal', n=3, constraints=dict(cash_buffer=.01),
    overlays=[dict(kind='drawdown_control', start=.02, full=.2)]))


def test_a_brake_for_drawdowns_is_the_same_in_backtest_and_production(braked, demo, panel, tmp_path):
    "From the book of the engine as a file, with what the account was worth before"
    result = backtest(braked, demo, start='2007-06-29', end='2009-12-31')
    invested = result.decision.weights.sum(axis=1)
    k = int(np.argmin(np.where(result.decision.status==np.array('ok'), invested, 2.)))
    assert .1<invested[k]<.7, 'the brake is at work'
    a,row = result.account,result.rows[k]
    seg,t = np.searchsorted(a.fills, row, side='right'),row-a.start
    shares = a.units[seg]*a.ledger.shares(row)
    lines = [f'AS_OF,,{panel.sessions[row]}', f'CASH,{float(a.cash[t])!r},', f'OWED,{float(a.owed[t])!r},{panel.sessions[row+15]}']
    lines += [f'{panel.ids[j]},{float(shares[j])!r},' for j in np.flatnonzero(shares)]
    file = tmp_path/'braked.csv'
    file.write_text('\n'.join(['ticker,shares,date', *lines, '']))
    held_back = propose(braked, demo, panel.sessions[row], file)
    assert held_back.decision.status==['hold'] and 'history of the account is not known' in held_back.decision.reason[0]
    lines += [f'NAV,{float(x)!r},{d}' for x,d in zip(result.nav[max(t-300, 0):t], result.sessions[max(t-300, 0):t])]
    file.write_text('\n'.join(['ticker,shares,date', *lines, '']))
    p = propose(braked, demo, panel.sessions[row], file)
    np.testing.assert_allclose(p.raw, result.decision.weights[k], rtol=0, atol=1e-9)
    again = propose(braked, demo, panel.sessions[row], recorded=p.account.record(panel)|dict(source=p.source))
    np.testing.assert_array_equal(again.raw, p.raw)


def test_an_account_in_cash_has_not_fallen(braked, demo):
    p = propose(braked, demo, '2009-02-27')
    assert p.decision.status==['ok'] and p.raw.sum()>.98


def test_what_an_account_was_worth_has_to_be_possible(panel, tmp_path):
    file = tmp_path/'mine.csv'
    for line,said in (('NAV,1000,2024-06-28', 'give earlier dates'), ('NAV,0,2024-05-28', 'is 0'), ('NAV,5,', 'is not a date'),
            ('NAV,5,2024-05-28\nNAV,6,2024-05-28', 'listed twice'), ('NAV,-5,2024-05-28', 'negative')):
        file.write_text(f'ticker,shares,date\nCASH,5,\n{line}\n')
        with pytest.raises(HoldingsError, match=said): read_statement(file, panel, np.datetime64('2024-06-28'))
