"""The rules of the backtest engine once more, slowly: a session at a time, a fund at a time, in shares as they are traded.

`tests/test_simulate.py` holds `quantetf.backtest.simulate.simulate` to it. The two share no code and no method: no units, no cumulative
products, no arrays over dates, and whatever has to hold after costs is found by plain iteration.
"""
from dataclasses import dataclass, field
from math import ceil, floor, isnan
from typing import NamedTuple

import numpy as np

from quantetf.core import DataError, ParameterError
from quantetf.strategy import Book

WHOLE = 1e-6  # A count this near to a whole number is one
DUST = 1e-12  # Smaller parts of an account are rounding, not money


class Trade(NamedTuple):
    row:int
    fund:int     # Column
    shares:float # As traded that session, negative for a sale
    price:float
    cost:float
    why:str      # 'rebalance', 'late', 'dividend', 'withdrawal', 'cash in lieu'


@dataclass
class Curves:
    "What was in the account after each close"
    nav:list = field(default_factory=list)
    cash:list = field(default_factory=list)
    owed:list = field(default_factory=list)
    holdings:list = field(default_factory=list)
    trades:list = field(default_factory=list)


@dataclass
class Order:
    shares:float     # Still to be traded, negative for a sale
    everything:bool  # A sale of all that is held, however much that is by then


def solved(step, x):
    "The x at which `step(x)` is x"
    for _ in range(500):
        x,before = step(x),x
        if abs(x-before)<=1e-15*abs(x): break
    return x


class Simulation:
    def __init__(self, panel, terms, rules, limits, cash):
        self.panel,self.terms,self.rules,self.limits = panel,terms,rules,limits
        self.funds = range(len(panel.ids))
        self.cash,self.shares = float(cash),[0.]*len(panel.ids)
        self.last = [None]*len(panel.ids)   # Last close, by the share count of the session
        self.before = [None]*len(panel.ids) # The one before this session's close, by the same count
        self.owed = []                      # (row of payment, fund, amount)
        self.orders = {}                    # Fund -> Order
        self.asked = None                   # Weights to be sized when they are filled
        self.entitled = {}                  # Fund -> shares before the fraction was paid out, on the day of a split
        self.trades = []

    # What can be looked up

    @property
    def whole(self): return self.rules.shares=='whole'

    def price(self, name, t, j):
        "Open or close of a session, None where there is none or the fund has closed"
        x = float(self.panel._fields[name][t,j])
        return None if isnan(x) or t>self.panel._events.closed[j] else x

    def cost(self, k, trades, price):
        "Currency that {fund: shares} at prices by fund cost under the terms of decision k"
        shares,each = np.zeros(len(self.funds)),np.ones(len(self.funds))
        for j,q in trades.items(): shares[j],each[j] = q,price[j]
        return sum(self.terms[k].charge(shares, each).tolist())

    def lots(self, shares):
        "Whole lots, rounded toward zero; as it is where shares may be fractional"
        if not self.whole: return shares
        count = floor(abs(shares)/self.rules.lot + WHOLE)*self.rules.lot
        return float(count if shares>0 else -count)

    def book(self, session):
        price = [1. if p is None else p for p in self.last]
        return Book(np.array(self.shares), np.array(price), self.cash, self.due(), session)

    def due(self): return sum(amount for _,_,amount in self.owed)
    def worth(self): return sum(self.shares[j]*self.last[j] for j in self.funds if self.shares[j])

    # What a session does

    def see(self, t):
        "The prices of a session"
        ratio = self.panel._fields['split'][t].tolist() if 'split' in self.panel._fields else [1.]*len(self.funds)
        for j in self.funds:
            if self.last[j] is not None: self.last[j] /= ratio[j]
            self.before[j] = self.last[j]
            if (close := self.price('close', t, j)) is not None: self.last[j] = close
        return ratio

    def trade(self, t, j, shares, price, cost, why):
        if not shares: return
        self.shares[j] += shares
        self.cash -= shares*price + cost
        self.trades.append(Trade(t, j, shares, price, cost, why))

    def interest(self, t):
        rate = self.panel.rate
        if rate is None or isnan(rate[t-1]): return
        days = int((self.panel.sessions[t] - self.panel.sessions[t-1]).astype(int))
        self.cash *= 1 + float(rate[t-1])*days/365

    def split(self, t, ratio):
        "More or fewer shares, and orders; a fraction of a whole share is paid out, and still earns the dividend of the day"
        self.entitled = {}
        for j in self.funds:
            if ratio[j]==1: continue
            self.shares[j] *= ratio[j]
            self.entitled[j] = self.shares[j]
            if self.whole:
                count = floor(self.shares[j] + WHOLE)
                if (fraction := self.shares[j]-count)>WHOLE: self.trade(t, j, -fraction, self.last[j], 0., 'cash in lieu')
                self.shares[j] = float(count)
            if j in self.orders: self.orders[j].shares = self.lots(self.orders[j].shares*ratio[j])

    def dividends(self, t):
        e = self.panel._events
        for ex,pay,j,cash in zip(e.ex.tolist(), e.pay.tolist(), e.col.tolist(), e.cash.tolist()):
            shares = self.entitled.get(j, self.shares[j])
            if ex==t and t<=e.closed[j] and shares: self.owed.append((pay, j, shares*cash))

    def closures(self, t):
        e = self.panel._events
        for j in self.funds:
            if e.closed[j]!=t-1: continue
            value = float(e.value[j])
            if self.shares[j]: self.cash += self.shares[j]*(self.last[j] if isnan(value) else value)
            self.shares[j] = 0.

    def payments(self, t):
        "Cash of dividends; {fund: what it paid}"
        paid = {}
        for pay,j,amount in self.owed:
            if pay==t: paid[j] = paid.get(j, 0) + amount
        self.cash += sum(paid.values())
        self.owed = [o for o in self.owed if o[0]!=t]
        return paid

    def reinvest(self, t, k, paid):
        "Buy more of what paid, for what it paid"
        paid = {j:amount for j,amount in paid.items() if self.shares[j]>0 and self.price('close', t, j) is not None}
        buys = {}
        for j,amount in paid.items():
            def shares(q, j=j, amount=amount): return (amount - self.cost(k, {j:q}, self.last))/self.last[j]
            buys[j] = self.lots(solved(shares, amount/self.last[j]))
        for j,q in self.paid_for(k, buys, self.last).items():
            self.trade(t, j, q, self.last[j], self.cost(k, {j:q}, self.last), 'dividend')

    def flow(self, t, k, amount):
        "Money from or to outside; what is missing is raised from all holdings alike"
        self.cash += amount
        if amount>=0 or self.cash>=0: return
        short,lot = -self.cash,self.rules.lot
        held = {j:self.shares[j] for j in self.funds if self.shares[j] and self.price('close', t, j) is not None}
        value = sum(q*self.last[j] for j,q in held.items())
        if not held or value - self.cost(k, held, self.last) < short*(1-DUST):
            raise ParameterError(f'{-amount} withdrawn on row {t}, more than there is')
        part = solved(lambda x: (short + self.cost(k, {j:x*q for j,q in held.items()}, self.last))/value, short/value)
        for j,q in held.items():
            sold = min(q, ceil(part*q/lot - WHOLE)*lot if self.whole else part*q)
            self.trade(t, j, -float(sold), self.last[j], self.cost(k, {j:sold}, self.last), 'withdrawal')

    # From weights to orders to fills

    def decide(self, t, k, target):
        self.orders,self.asked = {},None
        if callable(target): target = lambda k, f=target: f(k, self.book(self.panel.sessions[t])) # noqa: E731
        else: target = target.__getitem__
        weights = [float(w) for w in target(k)]
        if any(isnan(w) for w in weights): return # Hold
        if min(weights)<0 or sum(weights)>1+1e-9: raise ParameterError(f'weights {weights}')
        if any(w>0 and p is None for w,p in zip(weights, self.last)): raise ParameterError('weight for a fund that never had a price')
        if self.rules.sizing=='at_fill' and self.rules.fill!='same_close': self.asked = weights
        else: self.plan(k, weights, self.last)

    def sized(self, t, k):
        "Orders for what was asked, by the prices they are filled at"
        if self.asked is None: return
        price = list(self.last)
        if self.rules.fill=='next_open':
            price = list(self.before)
            for j in self.funds:
                if (x := self.price('open', t, j)) is not None: price[j] = x
        weights,self.asked = self.asked,None
        self.plan(k, weights, price)

    def plan(self, k, weights, price):
        "Orders that bring the account to weights of what is left of it after their costs"
        funds = [j for j in self.funds if weights[j] or self.shares[j]]
        value = self.cash + sum(self.shares[j]*price[j] for j in funds)
        def whole_way(x): return {j:weights[j]*x/price[j] - self.shares[j] for j in funds}
        x = solved(lambda x: value - self.cost(k, whole_way(x), price), value)
        trades = {}
        for j in funds:
            held,after = self.shares[j]*price[j],self.lots(weights[j]*x/price[j])
            q = after - self.shares[j]
            leaves = not weights[j]
            above = self.limits is not None and held>self.limits.max_weight*value
            if not leaves and not above:
                if abs(weights[j]*x - held)<self.rules.band*value: continue
                if abs(q*price[j])<self.rules.min_trade: continue
            if leaves or abs(q*price[j])>DUST*value: trades[j] = q
        trades = self.slower(k, self.affordable(k, trades, price, value), price, value)
        self.orders = {j:Order(q, q==-self.shares[j]) for j,q in trades.items() if q}

    def affordable(self, k, trades, price, value):
        "Trades whose purchases leave the cash that has to be left"
        buffer = self.limits.cash_buffer if self.limits is not None else 0.
        sales,buys = {j:q for j,q in trades.items() if q<0},{j:q for j,q in trades.items() if q>0}
        proceeds,spent = -sum(q*price[j] for j,q in sales.items()),sum(q*price[j] for j,q in buys.items())
        if not buys: return trades
        def part(f): # How much of the purchases can be afforded, if costs are those of the part f
            cost = self.cost(k, sales | {j:f*q for j,q in buys.items()}, price)
            return max(0., (self.cash + proceeds - cost - buffer*(value - cost))/spent)
        f = solved(part, 1.) if part(1.)<1-DUST else 1.
        return sales | self.less(buys, f)

    def less(self, buys, f):
        "Purchases times f; whole shares are held in whole lots after them"
        if f==1: return buys
        if not self.whole: return {j:f*q for j,q in buys.items()}
        return {j:max(0., self.lots(self.shares[j] + f*q) - self.shares[j]) for j,q in buys.items()}

    def paid_for(self, k, buys, price):
        "As much of all purchases as the cash is enough for"
        spent = sum(q*price[j] for j,q in buys.items())
        if not spent: return buys
        def part(f): return max(0., (self.cash - self.cost(k, {j:f*q for j,q in buys.items()}, price))/spent)
        return self.less(buys, solved(part, 1.) if part(1.)<1-DUST else 1.)

    def slower(self, k, trades, price, value):
        "Trades that turn over no more than is allowed; weights are held to it where they are chosen, rounding is looked at here"
        if not self.whole or self.limits is None or self.limits.max_turnover is None or not any(self.shares): return trades
        def turnover(f):
            part = {j:f*q for j,q in trades.items()}
            each = [q*price[j] for j,q in part.items()]
            return (sum(abs(o) for o in each) + abs(sum(each) + self.cost(k, part, price)))/2/value
        if turnover(1.)<=self.limits.max_turnover*(1+DUST): return trades
        f = solved(lambda f: f*self.limits.max_turnover/turnover(f), 1.)
        return {j:self.lots(f*q) for j,q in trades.items()}

    def fill(self, t, k, why):
        "Trade what can be traded; what has to wait stays in the orders"
        name = 'open' if self.rules.fill=='next_open' else 'close'
        price = {j:self.price(name, t, j) for j in self.orders}
        wanted,now,waits = {},{},False
        for j,o in self.orders.items():
            wanted[j] = -self.shares[j] if o.everything else max(o.shares, -self.shares[j])
            if not wanted[j]: continue
            if price[j] is None: waits = True; continue
            now[j] = self.capped(t, j, wanted[j])
            if abs(wanted[j]-now[j])<=1e-9*abs(wanted[j]): continue
            if self.rules.rest=='carry': waits = True
            else: wanted[j] = now[j]
        for j,q in now.items():
            if q<0: self.trade(t, j, q, price[j], self.cost(k, {j:q}, price), why)
        buys = {j:q for j,q in now.items() if q>0}
        for j,q in self.paid_for(k, buys, price).items():
            now[j] = q
            self.trade(t, j, q, price[j], self.cost(k, {j:q}, price), why)
        left = {j:wanted[j]-now.get(j, 0.) for j in wanted}
        self.orders = {j:Order(q, self.orders[j].everything and q<0) for j,q in left.items() if waits and q}

    def capped(self, t, j, shares):
        "As much of a trade as a share of the session's volume allows"
        if self.rules.participation is None: return shares
        volume = float(self.panel._fields['volume'][t,j])
        if isnan(volume): raise DataError(f'no volume for fund {j} on row {t}')
        most = self.rules.participation*volume
        if abs(shares)<=most: return shares
        return self.lots(most if shares>0 else -most)


def reference(
    panel, rows, target, # Decision rows, and weights (R, N) or a function (k, book)
    terms, rules, start:int, end:int, cash:float,
    flows=(),            # (rows, amounts)
    limits=None,
)->Curves:
    "What an account does from row `start` to row `end`"
    s,out = Simulation(panel, terms, rules, limits, cash),Curves()
    number = {int(r):k for k,r in enumerate(rows)}
    external = [(int(r), float(a)) for r,a in zip(*flows)] if len(flows) else []
    k = None # Number of the last decision
    for t in range(start): s.see(t)
    for t in range(start, end+1):
        ratio = s.see(t)
        if t>start:
            s.interest(t)
            s.split(t, ratio)
            s.dividends(t)
            s.closures(t)
            paid = s.payments(t)
            if rules.fill!='same_close' and t-1 in number:
                s.sized(t, k)
                s.fill(t, k, 'rebalance')
            elif t not in number: s.fill(t, k, 'late')
            if rules.dividends=='reinvest': s.reinvest(t, k, paid)
            for row,amount in external:
                if row==t: s.flow(t, k, amount)
        if t in number:
            k = number[t]
            s.decide(t, k, target)
            if rules.fill=='same_close': s.fill(t, k, 'rebalance')
        out.cash.append(s.cash)
        out.owed.append(s.due())
        out.holdings.append(s.worth())
        out.nav.append(s.worth() + s.cash + s.due())
    out.trades = s.trades
    return out
