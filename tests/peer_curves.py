"""Curves and figures by other people's code. It runs inside `.peers`, where QuantETF is not installed.

    .peers/bin/python tests/peer_curves.py QUESTIONS.npz ANSWERS.npz
    .peers/bin/python tests/peer_curves.py --time QUESTIONS.npz

A question is prices, target weights, and the rows they are filled on; or returns. An answer is net asset values, or figures.
Each engine keeps its own books. `benchmarks/engine.py` asks the same functions for their time.
"""
import sys
import time

import numpy as np
import pandas as pd


def dates(n): return pd.bdate_range('1990-01-01', periods=n) # Engines want some; which ones makes no difference to them
def names(n): return [f'F{j:04d}' for j in range(n)]


def spread(prices, rows, x):
    "(S, N) with `x` at `rows`, NaN elsewhere"
    out = np.full(prices.shape, np.nan)
    out[rows] = x
    return out


# ---- bt

def left_of(value, weights, held, cost):
    "V' = V - cost*sum|w V' - h|: what is left once holdings worth `h` have become `w` of what is left"
    left = value
    for _ in range(50): left = value - cost*np.abs(weights*left - held).sum()
    return left


def exact(cost):
    "An algo in place of bt's Rebalance, which takes the weights of the value before costs"
    import bt

    class Exact(bt.Algo):
        def __call__(self, target):
            aims = target.temp['weights']
            for name in aims.index[aims!=0]: target._create_child_if_needed(name)
            funds = list(target.children.values())
            weights = np.array([aims.get(o.name, 0.) for o in funds])
            held = np.array([o.value for o in funds])
            wanted = weights*left_of(target.value, weights, held, cost)
            for fund,w in zip(funds, wanted): fund.transact(w/fund.price - fund.position if w else -fund.position)
            return True
    return Exact()


def bt_curve(prices, rows, weights, cost, native=False, coupons=None):
    """Net asset value after each close, from 1, by bt; `coupons` are paid per share on their row. bt sweeps a coupon into cash a session
    after it was paid, so it is told of each on the session before, at whose close one has to hold the fund"""
    import bt
    days,columns = dates(len(prices)),names(prices.shape[1])
    algos = [bt.algos.WeighTarget(pd.DataFrame(weights, days[rows], columns)), bt.algos.Rebalance() if native else exact(cost)]
    funds = None if coupons is None else [bt.CouponPayingSecurity(o, fixed_income=False) for o in columns]
    more = {} if coupons is None else dict(additional_data=dict(coupons=pd.DataFrame(np.roll(coupons, -1, axis=0), days, columns)))
    test = bt.Backtest(bt.Strategy('job', algos, funds), pd.DataFrame(prices, days, columns), initial_capital=1.,
        commissions=lambda q, p: cost*abs(q)*p, integer_positions=False, progress_bar=False, **more)
    test.run()
    return test.strategy.values.to_numpy()[1:] # bt has a day of its own before the first


# ---- vectorbt

def vectorbt_values(prices, size, kind, cost):
    import vectorbt
    return vectorbt.Portfolio.from_orders(prices, size, size_type=kind, fees=cost, init_cash=1., cash_sharing=True, group_by=True,
        call_seq='auto', freq='D').value().to_numpy() # 'auto': sells first


def vectorbt_native(prices, rows, weights, cost):
    "Weights of the value before costs; purchases that cannot be paid are cut"
    return vectorbt_values(prices, spread(prices, rows, weights), 'targetpercent', cost)


def vectorbt_curve(prices, rows, weights, cost):
    "Numbers of shares, chosen anew until vectorbt itself says that each holding has its weight of the value after costs"
    left = np.ones(len(rows))
    for _ in range(40):
        shares = weights*left[:,None]/prices[rows]
        value = vectorbt_values(prices, spread(prices, rows, shares), 'targetamount', cost)
        if np.abs(value[rows]/left - 1).max()<1e-12: return value
        left = value[rows]
    raise ArithmeticError('vectorbt does not settle')


# ---- backtrader

def backtrader_curve(prices, rows, weights, cost):
    "For its speed only: weights of the value before costs, 0.3 % of it kept for them, as backtrader refuses what it cannot pay"
    import backtrader
    aims = dict(zip(rows.tolist(), .997*weights))

    class Job(backtrader.Strategy):
        def __init__(self): self.curve = []
        def next(self):
            self.curve.append(value := self.broker.getvalue())
            if (aim := aims.get(len(self)-1)) is None: return
            shares = [w*value/o.close[0] - self.getposition(o).size for w,o in zip(aim, self.datas)]
            for k in np.argsort(shares): # Sells first
                if shares[k]<0: self.sell(self.datas[k], -shares[k])
                elif shares[k]>0: self.buy(self.datas[k], shares[k])

    cerebro = backtrader.Cerebro(stdstats=False)
    cerebro.addstrategy(Job)
    cerebro.broker.set_coc(True)
    cerebro.broker.set_checksubmit(False)
    cerebro.broker.set_cash(1e6)
    cerebro.broker.setcommission(cost)
    for name,x in zip(names(prices.shape[1]), prices.T):
        bars = pd.DataFrame(dict(open=x, high=x, low=x, close=x, volume=0.), dates(len(x)))
        cerebro.adddata(backtrader.feeds.PandasData(dataname=bars, openinterest=None), name)
    return np.array(cerebro.run()[0].curve)/1e6


# ---- empyrical

def figures(returns, benchmark, risk_free):
    "empyrical's figures of daily returns"
    import empyrical as e
    r,b,f = returns,benchmark,risk_free
    return dict(total_return=e.cum_returns_final(r), annual_return=e.annual_return(r), annual_volatility=e.annual_volatility(r),
        sharpe=e.sharpe_ratio(r, f), sortino=e.sortino_ratio(r, f), downside_risk=e.downside_risk(r, f), max_drawdown=e.max_drawdown(r),
        calmar=e.calmar_ratio(r), value_at_risk=e.value_at_risk(r, .05), expected_shortfall=e.conditional_value_at_risk(r, .05),
        beta=e.beta(r-f, b-f), beta_of_totals=e.beta(r, b, f), alpha=e.alpha(r-f, b-f), excess_sharpe=e.excess_sharpe(r, b))


def calendar(returns, days):
    "empyrical's returns by year and by month"
    import empyrical as e
    r = pd.Series(returns, pd.DatetimeIndex(days))
    return dict(year=e.aggregate_returns(r, 'yearly').to_numpy(), month=e.aggregate_returns(r, 'monthly').to_numpy())


# ---- asking

ASK = dict(bt=bt_curve, vectorbt=vectorbt_curve, bt_native=lambda *a: bt_curve(*a, native=True), vectorbt_native=vectorbt_native,
    bt_coupons=lambda *a: bt_curve(*a[:-1], coupons=a[-1]), backtrader=backtrader_curve, figures=figures, calendar=calendar)


def read(questions):
    "(case, who) -> arguments, from arrays called 'case|who|number of the argument'"
    asked = {}
    with np.load(questions) as f:
        for key in f.files:
            case,who,k = key.split('|')
            asked.setdefault((case, who), {})[int(k)] = f[key]
    return {o:[args[k][()] for k in sorted(args)] for o,args in asked.items()}


def answered(questions, answers):
    "Arrays called 'case|who', or 'case|who|figure'"
    out = {}
    for (case,who),args in read(questions).items():
        answer = ASK[who](*args)
        for k,v in (answer.items() if isinstance(answer, dict) else [(None, answer)]):
            out[f'{case}|{who}' + (f'|{k}' if k else '')] = v
    np.savez(answers, **out)


def seconds(ask, prices, rows, weights, cost):
    start = time.process_time()
    for w in weights: ask(prices, rows, w, cost)
    return time.process_time() - start


def timed(questions):
    "Prints a line 'case|who|seconds of processor time' for each question; (V, R, N) weights are V simulations, timed as one"
    warm = set()
    for (case,who),(prices,rows,weights,cost) in read(questions).items():
        ask,each = ASK[who],weights.reshape(-1, *weights.shape[-2:])
        if who not in warm: ask(prices[:600], np.array([300, 400]), each[0,:2], cost)
        warm.add(who)
        took = seconds(ask, prices, rows, each, cost)
        if took<=5: took = min(took, seconds(ask, prices, rows, each, cost))
        print(case, who, took, sep='|', flush=True)


if __name__=='__main__':
    if sys.argv[1]=='--time': timed(sys.argv[2])
    else: answered(*sys.argv[1:])
