"""Corners of a backtest that teach a reader nothing: what is refused, what is said, what the figures begin with."""
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from quantetf.backtest.engine import backtest, benchmark_nav
from quantetf.backtest.simulate import Ledger, simulate
from quantetf.calendars import Explicit, sessions_between
from quantetf.core import DataError, ParameterError
from quantetf.costs import CommissionTerms, CostTerms, Proportional
from quantetf.data.check import sample_panel
from quantetf.data.view import Events, Panel
from quantetf.metrics import month_figures
from quantetf.orders import CostsTooHigh
from quantetf.portfolio import TopNEqual
from quantetf.strategy import Execution, Strategy
from quantetf.universe import Universe

DAYS = sessions_between('2024-01-02', '2024-12-31')


@dataclass(frozen=True)
class Everybody:
    "Funds with a close that have not closed"
    def members(self, view):
        mask = (view.age()>0) & ~view.closed()
        return Universe(mask, np.where(mask, '', 'not there'), view)


@dataclass(frozen=True)
class Alike:
    "The same score for all"
    def score(self, view, universe, features): return np.where(universe.mask, 1., np.nan)


def flat(n=2, price=10., **more):
    "Funds whose price does not change"
    close = np.full((len(DAYS), n), price)
    return Panel(DAYS, [f'F{j}' for j in range(n)], dict(open=close, close=close, tr=close/price, volume=np.full(close.shape, 1e4)), **more)


def strategy(n, *rows, days=DAYS, **parts):
    return Strategy(Everybody(), {}, Alike(), TopNEqual(n), schedule=Explicit([str(days[r]) for r in rows]), **parts)


def test_a_volume_cap_needs_closes_that_volumes_go_with():
    s = strategy(2, 5, execution=Execution(shares='fractional', participation=.1))
    assert backtest(s, flat(basis=['split_adjusted']*2)).nav[-1]>0
    with pytest.raises(DataError, match='participation: the closes of F0 are total return'): backtest(s, flat(basis=['total_return']*2))


def test_a_fund_that_closes_worthless_is_named():
    none = np.empty(0, int)
    events = Events(none, none, none, np.empty(0), np.array([100, len(DAYS)]), np.array([0., np.nan]))
    result = backtest(strategy(2, 5, costs=Proportional(0.)), flat(events=events), capital=1000.)
    assert result.nav[-1]==pytest.approx(500) and len(result.notes)==1 and result.notes[0].startswith(f'F0 closed on {DAYS[100]}')


def test_a_first_decision_on_the_last_session_measures_nothing():
    with pytest.raises(ParameterError, match='can first decide on the last session'): backtest(strategy(2, len(DAYS)-1), flat())


def test_the_first_cost_counts_where_the_data_begin_with_the_books():
    s = strategy(2, 0, execution=Execution('same_close', 'at_fill', 'fractional'), costs=Proportional(100.))
    result = backtest(s, flat())
    assert result.summary['strategy']['total_return']==pytest.approx(1/1.01-1) and len(result.levels)==len(DAYS)+1
    assert np.prod(1+result.gross_returns)==pytest.approx(1, abs=1e-4) and result.conserved()<1e-12


def test_months_are_those_of_the_panels_exchange():
    days = sessions_between('2020-01-06', '2022-12-30', 'XTKS')
    close = 50*np.exp(np.cumsum(np.random.default_rng(1).normal(0, .01, (len(days), 1)), axis=0))
    panel = Panel(days, ['F0'], dict(close=close, open=close, tr=close), exchange='XTKS')
    result = backtest(strategy(1, 5, days=days), panel)
    mine,home = result.summary['strategy'],month_figures(result.levels.strategy, 'XTKS')
    assert {k:mine[k] for k in home}==home!=month_figures(result.levels.strategy, 'XNYS')


def test_fees_that_an_account_cannot_pay_are_an_error():
    terms = CommissionTerms(np.zeros((3, 5)), np.tile(list('ABCDE'), (3, 1)), usd=np.zeros((3, 5)), minimum=1.)
    targets,rows = np.array([[.2]*5, [.1, .3, .2, .2, .2], [0, .5, .5, 0, 0]]),np.array([0, 2, 4])
    for target in targets, lambda k, book: targets[k]: # At once and one by one
        assert simulate(flat(5), rows, target, terms, Execution(shares='fractional'), 0, 7, 60.).nav[7]==pytest.approx(45)
        with pytest.raises(CostsTooHigh, match=f'{DAYS[5]}: the trades bring less than they cost'):
            simulate(flat(5), rows, target, terms, Execution(shares='fractional'), 0, 7, 12.)


def test_next_open_needs_opens():
    close = np.full((len(DAYS), 1), 10.)
    panel = Panel(DAYS, ['F0'], dict(close=close, tr=close))
    with pytest.raises(DataError, match='needs opens'): backtest(strategy(1, 5, execution=Execution('next_open')), panel)


def test_the_last_close_is_that_of_pandas():
    panel = sample_panel()
    ledger,f = Ledger(panel, Execution()),panel._fields
    want = pd.DataFrame(f['close']*np.cumprod(f['split'], axis=0)).ffill().to_numpy()
    rows = np.arange(len(panel.sessions))[:,None]
    np.testing.assert_array_equal(ledger.last(rows, np.arange(len(panel.ids))[None]), want)
    for r in 0, 7, 300, 620: np.testing.assert_array_equal(ledger.last(r), want[r])


def test_a_benchmark_that_ends_too_early_is_refused():
    panel = sample_panel()
    with pytest.raises(DataError, match='benchmark GONE closed on'): benchmark_nav(panel, 'GONE', 300, 624, 1.)


LONG = sessions_between('2012-01-02', '2017-12-29')


def busy(seed, days=LONG, n=40):
    "As traded, with splits, dividends paid later, closes that are missing and funds that end"
    (S,N),rng = (len(days), n),np.random.default_rng(seed)
    total = 50*np.exp(np.cumsum(rng.normal(.0003, .011, (S, N)), axis=0))
    split,ends = np.ones((S, N)),np.full(N, S)
    split[rng.integers(100, S-100, N//2),np.arange(0, N, 2)] = rng.choice([2., .5, 1.5], N//2)
    ends[::10] = rng.integers(S//3, S-1, len(ends[::10]))
    close = total/np.cumprod(split, axis=0)
    ex,col = np.array([(t, j) for t in range(40, S, 63) for j in range(N)]).T
    events = Events(ex, np.minimum(ex+10, S), col, .004*close[ex,col], ends, np.full(N, np.nan))
    none = (rng.random((S, N))<.001) | (np.arange(S)[:,None]>ends)
    none[ends[::10],np.arange(0, N, 10)] = False
    return Panel(days, [f'F{j:02d}' for j in range(N)], dict(close=np.where(none, np.nan, close), split=split), events=events)


@pytest.mark.parametrize('seed,rules', [(0, Execution()), (1, Execution(min_trade=2000.)), (2, Execution(lot=10)), (3, Execution(band=.01)),
    (4, Execution(shares='fractional')), (5, Execution('same_close', 'at_fill', 'fractional'))])
def test_many_at_once_and_one_by_one_are_one_account(seed, rules):
    panel,rows = busy(seed),np.arange(260, 1500, 5)
    there = ~np.isnan(panel._fields['close'][rows]) & (panel._events.closed>rows[:,None])
    weights = np.random.default_rng(seed).random(there.shape)*there
    weights[weights<np.sort(weights, axis=1)[:,-8:-7]] = 0
    weights *= .99/weights.sum(axis=1, keepdims=True)
    terms = CostTerms(np.full(weights.shape, .001))
    a,b = (simulate(panel, rows, o, terms, rules, 250, 1505, 1e6) for o in (weights, lambda k, book: weights[k]))
    assert a.fills.tolist()==b.fills.tolist() and a.why.tolist()==b.why.tolist()
    assert 'late' in a.why
    np.testing.assert_allclose(a.nav, b.nav, rtol=1e-11)
    np.testing.assert_allclose(a.trades, b.trades, rtol=1e-7, atol=1e-7)
