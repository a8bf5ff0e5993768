"""Figures of other libraries, in their own environment: `python peer_evaluation.py questions.npz answers.npz`.

Questions and answers are arrays called 'name|figure'.
"""
import sys
import warnings

import numpy as np
import pandas as pd

warnings.filterwarnings('ignore')


def quantstats(r, b, days):
    "QuantStats on daily returns"
    import quantstats.stats as q
    index = pd.DatetimeIndex(days)
    r,b = pd.Series(r, index),pd.Series(b, index)
    falls = q.drawdown_details(q.to_drawdown_series(r)).sort_values('max drawdown', kind='stable').head(5)
    greeks = q.greeks(r, b)
    return dict(annual_return=q.cagr(r), annual_volatility=q.volatility(r), sharpe=q.sharpe(r), sortino=q.sortino(r), calmar=q.calmar(r),
        max_drawdown=q.max_drawdown(r), ulcer=q.ulcer_index(r), value_at_risk=q.value_at_risk(r), skew=q.skew(r), kurtosis=q.kurtosis(r),
        information_ratio=q.information_ratio(r, b), beta=greeks['beta'], alpha=greeks['alpha'], falls=falls['max drawdown'].to_numpy()/100,
        best=q.best(r), worst=q.worst(r), rolling_volatility=q.rolling_volatility(r, 252).to_numpy(),
        rolling_sharpe=q.rolling_sharpe(r, rolling_period=252).to_numpy())


def empyrical(r, b, days):
    "empyrical on daily returns, and its capture ratios on months"
    import empyrical as e
    index = pd.DatetimeIndex(days)
    r,b = pd.Series(r, index),pd.Series(b, index)
    months = [e.aggregate_returns(o, 'monthly') for o in (r, b)]
    return dict(up=e.up_capture(*months, period='monthly'), down=e.down_capture(*months, period='monthly'),
        months=months[0].to_numpy(), benchmark_months=months[1].to_numpy(), rolling_beta=e.roll_beta(r, b, window=252).to_numpy(),
        rolling_sharpe=e.roll_sharpe_ratio(r, window=252).to_numpy(), rolling_volatility=e.roll_annual_volatility(r, window=252).to_numpy(),
        tracking_error=e.annual_volatility(r-b), tail=e.conditional_value_at_risk(r, .05))


def alphalens(scores, prices, fills, days):
    "alphalens on scores that are known at the fills, and prices of all sessions"
    import alphalens as a
    index = pd.DatetimeIndex(days)
    prices = pd.DataFrame(prices, index)
    factor = pd.DataFrame(scores, index[fills], prices.columns).rename_axis('date').stack().rename_axis(['date', 'asset'])
    table = a.utils.get_clean_factor_and_forward_returns(factor, prices, quantiles=5, periods=(5, 21), max_loss=1.)
    one = a.performance.factor_information_coefficient(table)
    returns,_ = a.performance.mean_return_by_quantile(table, by_date=True, demeaned=False)
    new = a.performance.quantile_turnover(table['factor_quantile'], 5, 1)
    near = a.performance.factor_rank_autocorrelation(table, 1)
    return {f'coefficient{k}':one[c].to_numpy() for k,c in ((5, one.columns[0]), (21, one.columns[1]))} | {
        f'returns{k}':returns[c].unstack(0).to_numpy() for k,c in ((5, returns.columns[0]), (21, returns.columns[1]))} | dict(
        turnover=new.to_numpy(), near=near.to_numpy())


if __name__=='__main__':
    with np.load(sys.argv[1]) as f: asked = {k:f[k] for k in f.files}
    if 'signal|scores' in asked:
        *parts,days = (asked.pop(f'signal|{k}') for k in ('scores', 'prices', 'fills', 'days'))
        found = alphalens(*parts, days.astype('M8[D]').astype('M8[ns]'))
    else: found = {}
    out = {f'signal|alphalens|{k}':v for k,v in found.items()}
    names = sorted({k.split('|')[0] for k in asked})
    for n in names:
        for who in (quantstats, empyrical):
            found = who(asked[f'{n}|returns'], asked[f'{n}|benchmark'], asked[f'{n}|days'].astype('datetime64[D]').astype('datetime64[ns]'))
            out |= {f'{n}|{who.__name__}|{k}':v for k,v in found.items()}
    np.savez(sys.argv[2], **out)
