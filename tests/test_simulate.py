"""The engine against small cases done on paper, and against a slow second implementation on random markets, rules and targets."""
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as rules_of
from hypothesis import strategies as st
from reference import Curves, Trade, reference

from quantetf.backtest.simulate import simulate
from quantetf.constraints import Constraints
from quantetf.core import DataError, ParameterError, QuantETFError
from quantetf.costs import CostTerms
from quantetf.data.view import Events, Panel
from quantetf.strategy import Execution

NAN = float('nan')


def engine(panel, rows, target, terms, rules, start, end, cash, flows=(), limits=None):
    "`simulate`, its trades listed in shares as they are traded"
    if len(flows): flows = np.array(flows[0], int),np.array(flows[1], float)
    a = simulate(panel, np.array(rows, int), target, terms, rules, start, end, cash, flows=flows if len(flows) else None, limits=limits)
    per_unit = np.cumprod(panel._fields['split'], axis=0)
    trades = [Trade(int(t), int(j), q[j]*per_unit[t,j], price[j]/per_unit[t,j], cost[j], why)
        for t,q,price,cost,why in zip(a.fills, a.trades, a.price, a.costs, a.why, strict=True) for j in np.flatnonzero(q)]
    return Curves(a.nav.tolist(), a.cash.tolist(), a.owed.tolist(), a.holdings.tolist(), trades)


# Cases small enough for paper

both = pytest.mark.parametrize('run', [reference, engine], ids=['reference', 'engine'])


def market(*close, open=None, volume=None, split=(), paid=(), closed=(), rate=None):
    "Funds by their closes, from Monday 2024-01-01 on; split: (row, fund, ratio), paid: (ex, pay, fund, cash), closed: (row, fund, value)"
    close = np.array(close, float).T
    S,N = close.shape
    ratio,last,value = np.ones((S, N)),np.full(N, S),np.full(N, NAN)
    for t,j,x in split: ratio[t,j] = x
    for t,j,x in closed: last[j],value[j] = t,x
    ex,pay,col,cash = (np.array(o, k) for o,k in zip(list(zip(*paid)) or [()]*4, (int, int, int, float)))
    grids = dict(open=close if open is None else np.array(open, float).T, close=close, split=ratio)
    if volume is not None: grids['volume'] = np.array(volume, float).T
    rate = None if rate is None else np.array(rate, float)
    sessions = np.busday_offset('2024-01-01', np.arange(S))
    return Panel(sessions, [f'F{j}' for j in range(N)], grids, rate=rate, events=Events(ex, pay, col, cash, last, value))


def account(run, panel, decisions, rules, cash=1000., bps=0., flows=(), limits=None):
    "Decisions are {row: weights}; the books are kept over all sessions of the panel"
    rows,target = sorted(decisions),np.array([decisions[r] for r in sorted(decisions)], float)
    terms = CostTerms(np.full(target.shape, bps/1e4))
    return run(panel, rows, target, terms, rules, 0, len(panel.sessions)-1, cash, flows, limits)


def traded(a): return [(o.row, o.fund, round(o.shares, 6), round(o.price, 9), round(o.cost, 6), o.why) for o in a.trades]
def near(*x): return pytest.approx(list(x) if len(x)>1 else x[0], rel=1e-9, abs=1e-6)


WHOLE,PARTS = Execution(),Execution(shares='fractional')


@both
def test_a_purchase_its_cost_and_interest_over_a_weekend(run):
    panel = market([10]*7, rate=[.0365]*7) # Row 4 is a Friday
    a = account(run, panel, {0:[.5]}, PARTS, cash=1001., bps=20) # x = 1001 - .002*x/2 at the decision, so x = 1000
    assert traded(a)==[(1, 0, 50, 10, 1, 'rebalance')]
    assert a.cash[1]==near(1001*1.0001 - 501) and a.cash[4]==near(a.cash[1]*1.0001**3) and a.cash[5]==near(a.cash[4]*1.0003)


@both
def test_a_reverse_split_pays_the_fraction_of_a_share(run):
    a = account(run, market([10, 10, 80, 84], split=[(2, 0, 1/8)]), {0:[1]}, WHOLE) # 100 shares become 12.5
    assert traded(a)==[(1, 0, 100, 10, 0, 'rebalance'), (2, 0, -.5, 80, 0, 'cash in lieu')]
    assert a.cash==near(1000, 0, 40, 40) and a.nav==near(1000, 1000, 1000, 12*84+40)


@both
def test_a_fraction_in_a_hole_is_paid_at_the_last_close_by_the_new_count(run):
    a = account(run, market([10, 10, NAN, 90], split=[(2, 0, 1/8)]), {0:[1]}, WHOLE)
    assert a.cash==near(1000, 0, 40, 40) and a.nav==near(1000, 1000, 1000, 12*90+40)


@both
def test_the_fraction_that_is_paid_out_earns_the_dividend_of_the_day(run):
    a = account(run, market([10, 10, 80, 80], split=[(2, 0, 1/8)], paid=[(2, 3, 0, 1.)]), {0:[1]}, WHOLE)
    assert a.owed==near(0, 0, 12.5, 0) and a.cash==near(1000, 0, 40, 52.5) # Entitled is who held at the close before


@both
def test_fractional_shares_keep_their_fraction(run):
    a = account(run, market([10, 10, 80, 84], split=[(2, 0, 1/8)]), {0:[1]}, PARTS)
    assert a.cash==near(1000, 0, 0, 0) and a.nav==near(1000, 1000, 1000, 12.5*84)


@both
def test_a_dividend_is_owed_until_it_is_paid(run):
    panel = market([100]*7, split=[(3, 0, 2)], paid=[(3, 5, 0, .5), (6, 7, 0, 1), (1, 2, 0, 7)])
    a = account(run, panel, {0:[1]}, WHOLE) # 10 shares bought at the close of row 1: too late for its dividend
    assert a.owed==near(0, 0, 0, 10, 10, 0, 20) and a.cash==near(1000, 0, 0, 0, 0, 10, 10) # 20 shares since row 3
    assert a.nav==near(1000, 1000, 1000, 2010, 2010, 2010, 2030)


@both
def test_a_payment_on_the_day_of_a_decision_is_invested(run):
    a = account(run, market([10]*5, [10]*5, paid=[(2, 2, 0, .25)]), {r:[.5, .5] for r in range(3)}, PARTS)
    assert a.cash==near(1000, 0, 12.5, 0, 0) and [o.shares for o in a.trades if o.row==3]==near(.625, .625)


@both
def test_nothing_happens_to_cash_that_is_left_alone(run):
    assert account(run, market([10]*3), {0:[NAN]}, PARTS, cash=1000.5).nav==near(1000.5, 1000.5, 1000.5)


@both
def test_who_sells_on_the_ex_date_is_paid_and_who_buys_is_not(run):
    panel = market([10]*5, [20]*5, paid=[(3, 4, 0, 1.), (3, 4, 1, 1.)])
    a = account(run, panel, {0:[1, 0], 2:[0, 1]}, WHOLE)
    assert a.owed==near(0, 0, 0, 100, 0) and a.cash==near(1000, 0, 0, 0, 100)


@both
def test_a_withdrawal_sells_the_same_part_of_everything(run):
    a = account(run, market([10]*4, [20]*4), {0:[.5, .5]}, PARTS, cash=1010., bps=100, flows=([2, 3], [-99., 30.]))
    # 50 and 25 shares were bought for 1000 + 10; 100 gross are 99 net
    assert traded(a)[2:]==[(2, 0, -5, 10, .5, 'withdrawal'), (2, 1, -2.5, 20, .5, 'withdrawal')]
    assert a.cash==near(1010, 0, 0, 30) and a.nav==near(1010, 1000, 900, 930)


@both
def test_a_withdrawal_in_whole_shares_rounds_up(run):
    a = account(run, market([10]*4, [20]*4), {0:[.5, .5]}, WHOLE, flows=([2], [-90.])) # 4.5 and 2.25 shares
    assert traded(a)[2:]==[(2, 0, -5, 10, 0, 'withdrawal'), (2, 1, -3, 20, 0, 'withdrawal')] and a.cash==near(1000, 0, 20, 20)


@both
def test_a_withdrawal_takes_cash_first_and_only_what_has_a_price(run):
    a = account(run, market([10]*5, [20, 20, 20, NAN, 20]), {0:[.4, .4]}, PARTS, flows=([2, 3], [-150., -100.]))
    assert traded(a)[2:]==[(3, 0, -5, 10, 0, 'withdrawal')] and a.cash==near(1000, 200, 50, 0, 0)


@both
def test_more_than_there_is_cannot_be_withdrawn(run):
    with pytest.raises(ParameterError): account(run, market([10]*4), {0:[.5]}, PARTS, flows=([3], [-1001.]))
    assert account(run, market([10]*4), {0:[.5]}, PARTS, flows=([3], [-1000.])).nav[-1]==near(0)


@both
def test_an_order_over_a_part_of_the_volume_takes_three_sessions(run):
    panel = market([10, 10, 11, 12, 13], volume=[[400]*5])
    a = account(run, panel, {0:[1]}, Execution(participation=.1), cash=1020.)
    # 102 shares are wanted: 40 for 400, 40 for 440, and with the 180 that are left 15 for 180; nothing waits for volume then
    assert traded(a)==[(1, 0, 40, 10, 0, 'rebalance'), (2, 0, 40, 11, 0, 'late'), (3, 0, 15, 12, 0, 'late')]
    assert a.cash==near(1020, 620, 180, 0, 0) and a.nav==near(1020, 1020, 1060, 95*12, 95*13)


@both
def test_what_is_over_the_volume_can_be_dropped(run):
    a = account(run, market([10]*4, volume=[[0, 409, 400, 400]]), {0:[1]}, Execution(participation=.1, rest='drop', lot=5))
    assert traded(a)==[(1, 0, 40, 10, 0, 'rebalance')] # 40.9 shares, in lots of 5


@both
@pytest.mark.parametrize('flows', [(), ([1], [0.])], ids=['', 'a stop in between'])
def test_what_is_dropped_is_not_taken_up_again_while_something_else_waits(run, flows):
    panel = market([10]*6, [10]*3 + [NAN]*3, volume=[[9999]*3 + [200]*3, [9999]*3 + [NAN]*3])
    a = account(run, panel, {0:[.5, .4], 2:[0, 1]}, Execution(participation=.1, rest='drop'), flows=flows)
    assert traded(a)[2:]==[(3, 0, -20, 10, 0, 'rebalance')] # Of a sale of 50


@both
def test_a_volume_nobody_knows_is_an_error(run):
    with pytest.raises(DataError): account(run, market([10]*3, volume=[[9, NAN, 9]]), {0:[1]}, Execution(participation=.1))


@both
def test_a_closure_pays_what_was_announced(run):
    panel = market([100, 100, 100, 90, 91], [50]*5, closed=[(3, 0, 85.)], paid=[(3, 4, 0, 1.), (4, 4, 0, 1.)])
    a = account(run, panel, {0:[1, 0]}, WHOLE)
    assert a.cash==near(1000, 0, 0, 0, 860) and a.nav==near(1000, 1000, 1000, 910, 860)
    a = account(run, market([100, 100, 100, 90, 91], closed=[(3, 0, NAN)]), {0:[1]}, WHOLE)
    assert a.cash==near(1000, 0, 0, 0, 900) and a.nav==near(1000, 1000, 1000, 900, 900)


@both
def test_an_order_that_waits_is_split(run):
    panel = market([10, NAN, 7, 7], split=[(1, 0, 3/2)])
    for rules,shares in ((PARTS, 7.5), (WHOLE, 7), (Execution(lot=5), 5)): # 5 shares were ordered
        a = account(run, panel, {0:[.05]}, rules)
        assert traded(a)==[(2, 0, shares, 7, 0, 'late')] and a.cash==near(1000, 1000, 1000-7*shares, 1000-7*shares)


@both
def test_a_sale_of_everything_that_waits_stays_one(run):
    panel = market([10, 10, 10, NAN, 80], split=[(3, 0, 1/8)])
    a = account(run, panel, {0:[.99], 2:[0]}, Execution(lot=33)) # 99 shares become 12 and a fraction, less than a lot
    assert traded(a)[1:]==[(3, 0, -.375, 80, 0, 'cash in lieu'), (4, 0, -12, 80, 0, 'late')] and a.cash[-1]==near(1000)


@both
def test_a_sale_of_everything_is_not_held_up_by_lots(run):
    panel = market([10, 10, 10, 80, 80, 80], split=[(3, 0, 1/8)], volume=[[9999]*4 + [150]*2])
    a = account(run, panel, {0:[.99], 3:[0]}, Execution(lot=33, participation=.1))
    assert traded(a)[2:]==[(4, 0, -12, 80, 0, 'rebalance')] # 15 may be traded, which is no lot


@both
def test_a_sale_of_everything_takes_along_what_a_dividend_buys(run):
    panel = market([10]*7, volume=[[9999]*3 + [500]*4], paid=[(2, 3, 0, .2)])
    a = account(run, panel, {0:[1], 2:[0]}, Execution(participation=.1, dividends='reinvest'))
    assert traded(a)[1:]==[(3, 0, -50, 10, 0, 'rebalance'), (3, 0, 2, 10, 0, 'dividend'), (4, 0, -50, 10, 0, 'late'),
        (5, 0, -2, 10, 0, 'late')]


@both
def test_purchases_wait_with_the_sale_that_pays_for_them(run):
    panel = market([10, 10, 10, NAN, NAN, 12, 12], [20]*7)
    a = account(run, panel, {0:[1, 0], 2:[0, 1]}, WHOLE)
    assert traded(a)[1:]==[(5, 0, -100, 12, 0, 'late'), (5, 1, 50, 20, 0, 'late')]
    assert a.cash==near(1000, 0, 0, 0, 0, 200, 200)


@both
def test_the_next_decision_ends_the_waiting(run):
    panel = market([10, 10, 10, NAN, 10, 10], [20]*6)
    a = account(run, panel, {0:[1, 0], 2:[0, 1], 4:[1, 0]}, WHOLE)
    assert traded(a)==[(1, 0, 100, 10, 0, 'rebalance')] # Not sold on row 4: what follows was decided on its close


@both
def test_a_fund_near_its_target_is_left_alone(run):
    panel = market([10, 10, 12, 12, 12], [10]*5)
    a = account(run, panel, {0:[.5, .5], 2:[.5, .5]}, Execution(shares='fractional', band=.05)) # 600 and 500 of 1100: off by 50
    assert len(a.trades)==2 and a.nav==near(1000, 1000, 1100, 1100, 1100)
    a = account(run, panel, {0:[.5, .5], 2:[.5, .5]}, Execution(shares='fractional', band=.04))
    assert traded(a)[2:]==[(3, 0, round(-50/12, 6), 12, 0, 'rebalance'), (3, 1, 5, 10, 0, 'rebalance')]
    a = account(run, panel, {0:[.04, .5], 2:[0, .5]}, Execution(shares='fractional', band=.05)) # Never bought
    assert traded(a)==[(1, 1, 50, 10, 0, 'rebalance')]
    a = account(run, panel, {0:[.06, .5], 2:[0, .5]}, Execution(shares='fractional', band=.07, min_trade=100))
    assert traded(a)==[(1, 1, 50, 10, 0, 'rebalance')]
    a = account(run, market([10, 10, 2, 2, 2], [10]*5), {0:[.1, .5], 2:[0, .5]}, Execution(shares='fractional', band=.07, min_trade=50))
    assert traded(a)[2:]==[(3, 0, -10, 2, 0, 'rebalance')] # 20 is a small trade, but all there is


@both
def test_a_fund_near_its_target_is_left_alone_though_no_lot_would_remain(run):
    panel = market([100, 100, 101, 101, 101], [10]*5)
    for band,sales in ((.05, []), (0., [(3, 0, -1, 101, 0, 'rebalance')])): # A tenth of 1001 is less than a share
        assert traded(account(run, panel, {0:[.1, 0], 2:[.1, 0]}, Execution(band=band)))[1:]==sales


@both
def test_what_was_left_alone_is_what_the_next_decision_starts_from(run):
    a = account(run, market([10]*7, [10]*7), {0:[.5, .5], 2:[.3, .53], 4:[.5, .5]}, Execution(shares='fractional', band=.05))
    assert [(o.fund, round(o.shares, 6)) for o in a.trades]==[(0, 50), (1, 50), (0, -20), (0, 20)]


@both
def test_above_the_largest_weight_the_band_is_not_asked(run):
    panel = market([10, 10, 12, 12, 12], [10]*5)
    a = account(run, panel, {0:[.5, .5], 2:[.5, .5]}, Execution(shares='fractional', band=.2), limits=Constraints(max_weight=.51))
    assert traded(a)[2:]==[(3, 0, round(-50/12, 6), 12, 0, 'rebalance')] # The purchase stays within the band


@both
def test_purchases_without_their_sale_are_cut_to_the_cash(run):
    panel = market([10, 10, 12, 12, 12], [10]*5, [10]*5)
    a = account(run, panel, {0:[.5, .3, 0], 2:[.4, .3, .3]}, Execution(shares='fractional', band=.15), limits=Constraints(cash_buffer=.1))
    # 600, 300 and 200 in cash of 1100: the sale of 160 is within 165; 330 are wanted, 90 leave the buffer of 110
    assert traded(a)[2:]==[(3, 2, 9, 10, 0, 'rebalance')] and a.cash[-1]==near(110)
    a = account(run, panel, {0:[.5, .3, 0], 2:[.4, .3, .3]}, Execution(shares='fractional', band=.15), 1008., 100,
        limits=Constraints(cash_buffer=.1)) # Of 1100 less the cost of a hundredth: 200 - 1.01*x = .1*(1100 - .01*x)
    assert a.trades[-1].shares==near(9/1.009) and a.cash[-1]==near(.1*a.nav[-1])


@both
def test_turnover_is_limited_except_at_the_start(run):
    limits = Constraints(max_turnover=.25)
    a = account(run, market([10]*5, [10]*5), {0:[1, 0], 2:[0, 1]}, WHOLE, limits=limits)
    assert traded(a)==[(1, 0, 100, 10, 0, 'rebalance'), (3, 0, -25, 10, 0, 'rebalance'), (3, 1, 25, 10, 0, 'rebalance')]
    a = account(run, market([10]*5, [10]*5), {0:[1, 0], 2:[0, 1]}, Execution(lot=10), limits=limits)
    assert [o.shares for o in a.trades]==near(100, -20, 20)


@both
def test_what_the_turnover_limit_leaves_is_sold_by_later_decisions(run):
    targets = {0:[.5, .5]} | {r:[0, 1] for r in (2, 3, 4)}
    a = account(run, market([10]*7, [10]*7), targets, WHOLE, limits=Constraints(max_turnover=.25))
    assert [o.shares for o in a.trades]==near(50, 50, -25, 25, -25, 25) and a.nav==near(*[1000]*7)


@both
def test_a_dividend_is_invested_again_on_the_day_it_is_paid(run):
    panel = market([40, 40, 40, 50, 50], [10]*5, paid=[(2, 3, 0, 2.), (2, 3, 1, 1.)])
    a = account(run, panel, {0:[.4, .4], 2:[.4, 0]}, Execution(shares='fractional', dividends='reinvest', band=.1), bps=100)
    # 1000 = x + .01*.8x buys 9.92.. shares of one fund, 39.7.. of the other, which is gone when it pays
    one,other = .4*1000/1.008/40,.4*1000/1.008/10
    again = [o for o in a.trades if o.why=='dividend']
    assert [(o.row, o.fund, o.price) for o in again]==[(3, 0, 50)]
    assert again[0].shares==pytest.approx(2*one/50.5) and again[0].cost==pytest.approx(2*one/101)
    cash = 1000 - .8*1000/1.008*1.01
    assert a.cash[3]==pytest.approx(cash + other*10*.99 + other)
    a = account(run, panel, {0:[.4, .4]}, Execution(dividends='reinvest'), bps=0) # 20 and 40 in cash are no share and 4 shares
    assert [(o.row, o.fund, o.shares) for o in a.trades if o.why=='dividend']==[(3, 1, 4)] and a.cash[-1]==near(220)


@both
def test_opens_size_and_fill(run):
    panel = market([10, 12, 12], [10, NAN, 20], open=[[10, 8, 12], [10, NAN, 10]])
    a = account(run, panel, {0:[.4, .4]}, Execution(fill='next_open', sizing='at_fill', shares='fractional'))
    assert traded(a)==[(1, 0, 50, 8, 0, 'rebalance'), (2, 1, 40, 10, 0, 'late')] and a.nav==near(1000, 1200, 600+600-400+800)
    a = account(run, panel, {0:[.4, .4]}, Execution(fill='next_open', shares='fractional'))
    assert [o.shares for o in a.trades]==near(40, 40)
    dark = market([10, 10, 20, 20], [10]*4, open=[[10, 10, NAN, 20], [10]*4]) # At the open nobody knows the close of 20
    a = account(run, dark, {0:[.5, 0], 1:[.5, .2]}, Execution(fill='next_open', sizing='at_fill', shares='fractional'))
    assert traded(a)[1:]==[(2, 1, 20, 10, 0, 'rebalance')]
    a = account(run, panel, {0:[.4, .4]}, Execution(fill='same_close', shares='fractional'))
    assert [(o.row, o.shares) for o in a.trades]==[(0, 40), (0, 40)]


@both
def test_targets_that_cannot_be_meant_are_refused(run):
    panel = market([10]*3, [10]*3, [NAN, 10, 10])
    for weights in ([.6, .5, 0], [-.1, .5, 0], [.5, 0, .5]):
        with pytest.raises(QuantETFError): account(run, panel, {0:weights}, PARTS)
    assert len(account(run, panel, {1:[.5, 0, .5]}, PARTS).trades)==2


# Anything that can happen, at once

RATIOS = 2., 3., 1.5, 1/8, 10., 1/10, 1/3, 4/3


@dataclass(frozen=True)
class Case:
    "A random market, account and list of decisions, written so that a failure can be read"
    levels:tuple      # First price of each fund
    sessions:int
    start:int
    end:int
    rules:Execution
    decisions:tuple   # (row, parts of each fund, parts in cash), or (row, None, 0) to hold
    seed:int=0        # Of price changes and of costs; 0: prices change by splits alone
    holes:tuple=()    # (fund, row, sessions) without bars
    no_open:tuple=()  # (fund, row)
    no_close:tuple=() # (fund, row)
    splits:tuple=()   # (fund, row, ratio)
    paid:tuple=()     # (fund, row of the ex-date, sessions to the payment, percent of the price)
    listed:tuple=()   # (fund, row) of the first bar
    closed:tuple=()   # (fund, row, value or None); bars go on
    rate:float|None=None
    no_rate:tuple=()  # Rows
    volume:int=500    # Largest
    quiet:tuple=()    # (fund, row) without volume
    bps:int|None=0    # None: another one for each fund and decision
    cash:float=1000.
    flows:tuple=()    # (row, twentieths of the cash)
    limits:Constraints|None=None

    @property
    def funds(self): return range(len(self.levels))
    @property
    def invested(self): return 1. if self.limits is None else self.limits.invested

    def panel(self):
        S,N = self.sessions,len(self.levels)
        rng,bumps = np.random.default_rng(self.seed),.03*(self.seed>0)
        listed,closed = dict(self.listed),{j:(t, v) for j,t,v in self.closed}
        split,value,last = np.ones((S, N)),np.full(N, NAN),np.full(N, S)
        for j,(t,v) in closed.items():
            if t>=listed.get(j, 0): last[j],value[j] = t,NAN if v is None else v
        for j,t,x in self.splits:
            if t<=last[j]: split[t,j] = x
        path = np.exp(np.cumsum(bumps*rng.standard_normal((S, N)), axis=0))*self.levels/np.cumprod(split, axis=0)
        close = np.maximum(path.round(2), .05)
        open = np.maximum((path*np.exp(bumps/2*rng.standard_normal((S, N)))).round(2), .05)
        volume = np.full((S, N), float(self.volume)) if not self.seed else rng.integers(self.volume+1, size=(S, N)).astype(float)
        for j,t in self.quiet: volume[t,j] = 0
        for j,t in self.no_open: open[t,j] = NAN
        for j,t in self.no_close: close[t,j] = NAN
        for j,t,n in self.holes: open[t:t+n,j] = close[t:t+n,j] = NAN
        for j,t in listed.items(): open[:t,j] = close[:t,j] = NAN
        first = [next(iter(np.flatnonzero(~np.isnan(x))), S) for x in close.T]
        last[last<first] = S # What has never had a price cannot close
        volume[np.isnan(open) & np.isnan(close)] = NAN
        col,ex,lag,percent = (np.array(o, int) for o in list(zip(*self.paid)) or [()]*4)
        rate = None if self.rate is None else np.full(S, self.rate)
        if rate is not None: rate[list(self.no_rate)] = NAN
        return Panel(np.busday_offset('2024-01-01', np.arange(S)), [f'F{j}' for j in range(N)],
            dict(open=open, close=close, volume=volume, split=split), rate=rate,
            events=Events(ex, np.minimum(ex+lag, S), col, (path[ex,col]*percent/100).round(3), last, value))

    def target(self, panel):
        "Weights of the decisions, within the cash buffer; a fund that has no price yet, or has closed, gets none"
        out = np.full((len(self.decisions), len(self.levels)), NAN)
        seen = np.cumsum(~np.isnan(panel._fields['close']), axis=0)>0
        for k,(t,parts,idle) in enumerate(self.decisions):
            if parts is None: continue
            parts = np.where(seen[t] & (panel._events.closed>=t), parts, 0.)
            out[k] = parts/max(parts.sum() + idle, 1)*self.invested
        return out

    def run(self, f, target=None):
        panel = self.panel()
        target = self.target(panel) if target is None else target
        rows = [t for t,_,_ in self.decisions]
        rng,shape = np.random.default_rng(self.seed),(len(rows), len(self.levels))
        terms = CostTerms(rng.uniform(0, .02, shape) if self.bps is None else np.full(shape, self.bps/1e4))
        flows = ([t for t,_ in self.flows], [self.cash*x/20 for _,x in self.flows]) if self.flows else ()
        return f(panel, rows, target, terms, self.rules, self.start, self.end, self.cash, flows, self.limits)


def some(*parts, least=0, most=4): return st.lists(st.tuples(*parts), min_size=least, max_size=most).map(tuple)
def one_each(*parts, least=0, most=3):
    return st.lists(st.tuples(*parts), min_size=least, max_size=most, unique_by=lambda o: o[0]).map(lambda o: tuple(sorted(o)))
def either(*choices): return st.sampled_from(choices)


THEMES = 'anything', 'limits', 'withdrawals', 'waiting', 'income' # What there is more of


@st.composite
def executions(draw, theme):
    shares,parts = draw(either('fractional', 'whole')),{'waiting':(.0637, .217), 'limits':(None,), 'withdrawals':(None,)}
    return Execution(fill=draw(either('next_close', 'next_open', 'same_close')), sizing=draw(either('at_decision', 'at_fill')),
        shares=shares, lot=draw(either(1, 5)) if shares=='whole' else 1, min_trade=draw(either(0., 61.7)),
        band=draw(either(.0317, .117) if theme=='limits' else either(0., .0317, .117)),
        participation=draw(either(*parts.get(theme, (None, .217, .0637)))), rest=draw(either('carry', 'drop')),
        dividends=draw(either('reinvest') if theme=='income' else either('wait', 'reinvest')))


@st.composite
def cases(draw):
    "Numbers that are awkward where a tie would be decided by rounding, small where a reader wants to follow"
    theme = draw(either(*THEMES))
    def least(what, n): return n if theme==what else 0
    levels = tuple(draw(st.lists(either(10, 37, 5, 120), min_size=2, max_size=6)))
    S = draw(st.integers(15, 60))
    start,end = draw(st.integers(0, 4)),S-1-draw(st.integers(0, 4))
    fund,row,later = st.integers(0, len(levels)-1),st.integers(0, S-1),st.integers(1, S-1)
    one = st.tuples(*[either(1, 2, 0, 4)]*len(levels))
    def parts(): return None if draw(st.integers(0, 6))==6 else draw(one)
    rows = sorted(draw(st.sets(st.integers(start, end), min_size=1, max_size=8)))
    limits = st.builds(Constraints, max_weight=either(1., .41, .23), cash_buffer=either(0., .037, .113),
        max_turnover=either(None, .237, .613))
    amounts = either(-1, -6, -3) if theme=='withdrawals' else either(-1, 2, -6, 4)
    return Case(levels, S, start, end, draw(executions(theme)), seed=draw(st.integers(0, 99)),
        decisions=tuple((t, p, 0 if p is None else draw(st.integers(0, 3))) for t in rows for p in [parts()]),
        holes=draw(some(fund, row, st.integers(1, 9), least=least('waiting', 2))),
        no_open=draw(some(fund, row)), no_close=draw(some(fund, row)), listed=draw(one_each(fund, later, most=2)),
        splits=draw(some(fund, later, either(*RATIOS), least=least('waiting', 2))),
        paid=draw(some(fund, row, st.integers(0, 6), either(1, 3, 25), least=least('income', 5), most=8)),
        closed=draw(one_each(fund, later, either(None, 7., 0.), most=2)),
        rate=draw(either(None, .04)), no_rate=draw(st.lists(row, max_size=2).map(tuple)),
        volume=draw(either(500, 3000, 90)), quiet=draw(some(fund, row)), bps=draw(either(0, 10, None)),
        cash=draw(either(10_000., 2000.5, 777_777.)), limits=draw(limits if theme=='limits' else st.none() | limits),
        flows=draw(one_each(st.integers(start+1, end), amounts, least=least('withdrawals', 2))))


steady = rules_of(derandomize=True, database=None, deadline=None, max_examples=150, print_blob=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much])


def outcome(case, f, target=None):
    "What happened, or the name of what was refused"
    try: return case.run(f, target)
    except QuantETFError as e: return type(e).__name__


def same(got, want, case):
    "Raise unless both accounts are worth the same on every session, and for the same reasons"
    if isinstance(want, str) or isinstance(got, str): assert got==want; return
    for i,nav in enumerate(want.nav):
        for what in ('nav', 'cash', 'owed', 'holdings'):
            a,b = getattr(got, what)[i],getattr(want, what)[i]
            assert abs(a-b)<=1e-9*max(nav, 1.), f'{what} on row {case.start+i}: {a!r}, by the rules {b!r}\n{told(got, want, nav)}'
    assert listed(got, case)==listed(want, case), told(got, want, 1)


def listed(a, case): # Which trades there were, without dust
    nav = max(max(a.nav), 1.)
    return sorted({(o.row, o.fund, o.why, bool(o.shares>0)) for o in a.trades if abs(o.shares*o.price)>1e-7*nav})


def told(got, want, nav):
    "Both lists of trades, for a reader"
    def lines(a): return [f'{o.row:3d} F{o.fund} {o.shares:+.6f} at {o.price:.6f}, {o.cost:.6f} {o.why}' for o in sorted(a.trades)]
    a,b = lines(got),lines(want)
    return '\n'.join([f'{"=" if x==y else "!"} {x:50s} {y}' for x,y in
        zip(a + ['-']*max(0, len(b)-len(a)), b + ['-']*max(0, len(a)-len(b)))])


def conserved(a, case):
    "Raise unless the account holds what its trades and the market gave it, by prices as traded"
    panel = case.panel()
    close,split,e = panel._fields['close'],panel._fields['split'],panel._events
    shares,last,cash,owed = [0.]*len(case.levels),[NAN]*len(case.levels),case.cash,[]
    for t in range(case.end+1):
        gain = 0.
        for j in case.funds: # A night passes, and with it the price of what is held
            old,last[j] = last[j],last[j]/split[t,j]
            shares[j] *= split[t,j]
            if not np.isnan(close[t,j]) and t<=e.closed[j]: last[j] = close[t,j]
            if not shares[j]: continue
            value = last[j] if t!=e.closed[j]+1 or np.isnan(e.value[j]) else e.value[j]
            gain += shares[j]*(value - old/split[t,j])
        if t<case.start: continue
        i = t-case.start
        income = 0. if not i or panel.rate is None or np.isnan(panel.rate[t-1]) else \
            cash*panel.rate[t-1]*(panel.sessions[t]-panel.sessions[t-1]).astype(int)/365
        gain += income
        cash += income
        for ex,pay,j,x in zip(e.ex, e.pay, e.col, e.cash):
            if ex==t and t<=e.closed[j] and shares[j]:
                gain += shares[j]*x
                owed.append((pay, shares[j]*x))
        cash += sum(x for pay,x in owed if pay==t)
        owed = [o for o in owed if o[0]!=t]
        for j in case.funds:
            if t!=e.closed[j]+1 or not shares[j]: continue
            cash += shares[j]*(last[j] if np.isnan(e.value[j]) else e.value[j])
            shares[j] = 0.
        for o in a.trades:
            if o.row!=t: continue
            shares[o.fund] += o.shares
            cash -= o.shares*o.price + o.cost
            gain += o.shares*(last[o.fund] - o.price) - o.cost # Their price is not always the close
        flow = sum(case.cash*x/20 for row,x in case.flows if row==t)
        cash += flow
        nav,near = cash + sum(x for _,x in owed) + sum(q*p for q,p in zip(shares, last) if q),1e-9*max(a.nav[i], 1.)
        assert abs(a.nav[i]-nav)<=near and abs(a.cash[i]-cash)<=near and abs(a.nav[i]-a.cash[i]-a.owed[i]-a.holdings[i])<=near, t
        before = a.nav[i-1] if i else case.cash
        assert abs(a.nav[i] - (before + gain + flow))<=near, f'NAV changes by {a.nav[i]-before!r} on row {t}, explained: {gain+flow!r}'
        assert a.cash[i]>=-1e-3-near and all(q*p>=-near for q,p in zip(shares, last) if q) # Neither is borrowed


@steady
@given(cases())
def test_the_engine_does_what_the_rules_say(case):
    got = outcome(case, engine)
    same(got, outcome(case, reference), case)
    if not isinstance(got, str): conserved(got, case)


@steady
@given(cases())
def test_the_engine_does_what_the_rules_say_when_it_asks_date_by_date(case):
    "Halfway from what is held to the target; on holidays from trading, nothing"
    fixed = case.target(case.panel())
    def run(f):
        books = []
        def target(k, book):
            books.append((book.nav, book.cash, book.owed, *book.weights))
            return fixed[k] if np.isnan(fixed[k]).any() else .5*fixed[k] + .499*case.invested*book.weights
        return outcome(case, f, target),books
    (got,seen),(want,books) = run(engine),run(reference)
    same(got, want, case)
    if isinstance(got, str): return
    conserved(got, case)
    assert len(seen)==len(books)==len(case.decisions)
    for (t,_,_),a,b in zip(case.decisions, seen, books, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9*max(b[0], 1.), err_msg=f'the book of row {t}')
        if case.rules.fill!='same_close': assert abs(a[0] - got.nav[t-case.start])<=1e-9*max(b[0], 1.)
