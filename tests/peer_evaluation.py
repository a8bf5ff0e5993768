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


if __name__=='__main__':
    with np.load(sys.argv[1]) as f: asked = {k:f[k] for k in f.files}
    names = sorted({k.split('|')[0] for k in asked})
    out = {}
    for n in names:
        for who in (quantstats, empyrical):
            found = who(asked[f'{n}|returns'], asked[f'{n}|benchmark'], asked[f'{n}|days'].astype('datetime64[D]').astype('datetime64[ns]'))
            out |= {f'{n}|{who.__name__}|{k}':v for k,v in found.items()}
    np.savez(sys.argv[2], **out)
