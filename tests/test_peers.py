"""The engine against other people's: bt and vectorbt keep their own books from prices and target weights, empyrical its own figures.

They run in `.peers` (`make peers`), all of them in one process. Compared are curves under matched conventions: holdings at their
weights of what is left after costs, in fractions of a share. Skipped, with the reason, without `.peers`; what needs real market
data is skipped where they are absent, and the same checks on random prices are not.
"""
import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from quantetf import metrics
from quantetf.backtest.engine import backtest
from quantetf.calendars import sessions_between
from quantetf.core import find_settings, read_yaml
from quantetf.data.ingest import ingest
from quantetf.data.view import Panel, load_panel
from quantetf.strategy import make_strategy

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT/'.peers'
SHARED = Path(os.environ.get('QUANTETF_REAL_DATA') or ROOT.parent/'shared'/'data')
GOLDEN = SHARED.parent/'golden'/'golden.json'
REAL = all((SHARED/o).is_dir() for o in ('yahoo_daily', 'lean'))
pytestmark = pytest.mark.skipif(not (PEERS/'.ready').exists(), reason='the environment .peers is absent: make peers')
real = [pytest.mark.real_data, pytest.mark.skipif(not REAL, reason='the folders yahoo_daily and lean of real market data are absent')]

START,END,COST = '2007-06-29','2024-06-28',.001
CORE = read_yaml(ROOT/'configs'/'universes'/'core20.yaml')['tickers']
SAME,NEXT = (dict(fill=o, sizing='at_fill', shares='fractional') for o in ('same_close', 'next_close'))
MOMENTUM = dict(features=dict(mom=dict(kind='momentum')), alpha=dict(kind='rank', feature='mom'))
QUIET = dict(features=dict(mom=dict(kind='momentum', lookback=126, skip=0), vol=dict(kind='volatility')), alpha=MOMENTUM['alpha'])


def series(x, days): return pd.Series(x, pd.DatetimeIndex(days.astype('datetime64[ns]')))
def top(n, **constraints): return dict(portfolio=dict(kind='top_n_equal', n=n, constraints=constraints))


JOBS = {
    'top 5 monthly': MOMENTUM | top(5) | dict(execution=SAME),
    'inverse volatility weekly': QUIET | dict(portfolio=dict(kind='inverse_volatility', n=8), schedule=dict(kind='weekly'), execution=SAME),
    'top 3 quarterly with cash': MOMENTUM | top(3, cash_buffer=.1) | dict(schedule=dict(kind='quarterly'), execution=SAME),
    'top 5 monthly, next close': MOMENTUM | top(5) | dict(execution=NEXT),
}
CASES = [pytest.param(o, m, id=f'{m}: {o}', marks=real if m=='real' else ()) for m in ('real', 'random') for o in JOBS]


# ---- markets

@pytest.fixture(scope='module')
def settings(tmp_path_factory):
    place = tmp_path_factory.mktemp('peers')
    return replace(find_settings(ROOT, environ={}), data=place/'data', runs=place/'runs')


def random_market():
    "Panel and prices of funds that jump, and pay no interest on cash"
    sessions,ids = sessions_between('2006-01-03', '2012-12-31'),[f'F{j:02d}' for j in range(12)]
    steps = np.random.default_rng(3).standard_t(4, (len(sessions), len(ids)))
    prices = 50*np.exp(np.cumsum(.012*steps, axis=0))
    return Panel(sessions, ids, dict(open=prices, close=prices, tr=prices), basis=['total_return']*len(ids)),prices


def real_market(settings):
    "Panel of the ingested files without its interest on cash, which the others do not know; and adjusted closes from the files"
    p = load_panel(ingest('csv', SHARED/'yahoo_daily', 'us33_adjusted', settings, prices='adjusted'))
    panel = Panel(p.sessions, p.ids, p._fields, p.version, p._facts, None, p._events, p.exchange, p.basis)
    closes = {o:pd.read_csv(SHARED/'yahoo_daily'/f'{o}.csv', index_col=0, parse_dates=True).AdjClose for o in CORE}
    return panel,pd.DataFrame(closes).reindex(pd.DatetimeIndex(p.sessions.astype('datetime64[ns]'))).to_numpy()


def ours(job, market, panel, prices):
    "(curve, what the others are told: prices, rows of the fills, weights, cost)"
    funds,start,end = (CORE, START, END) if market=='real' else (panel.ids.tolist(), '2007-06-29', None)
    parts = dict(universe=dict(kind='static', tickers=funds), costs=dict(kind='proportional', bps=1e4*COST))
    result = backtest(make_strategy(parts|JOBS[job], job), panel, start, end, capital=1.)
    assert set(result.decision.status)=={'ok'} and not result.notes
    a = result.account
    rows = result.rows + result.strategy.execution.lag - a.start
    some = rows<=a.end-a.start
    weights = result.decision.weights[:,np.searchsorted(panel.ids, funds)]
    return result.nav,(prices[a.start:a.end+1], rows[some], weights[some], COST)


def spy(settings, cost):
    "SPY as traded, every dividend reinvested at the close of its ex-date: curve, sessions, what bt is told, total return of the panel"
    panel = load_panel(ingest('csv', SHARED/'lean', 'lean', settings))
    j,e = list(panel.ids).index('SPY'),panel._events
    due = panel.sessions[e.ex[e.col==j]]
    due = ['2007-12-31', *due[due>np.datetime64('2007-12-31')].astype(str).tolist()]
    mom = dict(kind='momentum', lookback=1, skip=0, max_stale=0)
    strategy = make_strategy(MOMENTUM | top(1) | dict(universe=dict(kind='static', tickers=['SPY']), features=dict(mom=mom),
        schedule=dict(kind='explicit', on=due), costs=dict(kind='proportional', bps=1e4*cost), execution=SAME))
    result = backtest(strategy, panel, '2007-12-31', '2021-03-31', capital=1.)
    a,f = result.account,panel._fields
    assert (f['split'][a.start:a.end+1,j]==1).all() and panel.rate is None and (e.pay==e.ex).all()
    close,cash,tr = (f[k][a.start:a.end+1,[j]] for k in ('close', 'cash', 'tr'))
    return result.nav,result.sessions,(close, result.rows-a.start, np.ones((len(due), 1)), cost, cash),tr[:,0]


def return_series(settings):
    "name -> (returns, returns of a benchmark, return of cash, sessions)"
    rng,n,cash = np.random.default_rng(5),750,.03/252
    days = sessions_between('2010-01-01', '2013-12-31')[:n]
    b = rng.normal(.0004, .01, n)
    out = dict(normal=(rng.normal(.0003, .012, n), b, cash), jumps=(.01*rng.standard_t(3, n), b, 0.), losses=(-np.abs(b), b, 0.),
        levered=(2*b + rng.normal(0, .002, n), b, rng.uniform(0, .0002, n)),
        same=(np.full(n, .0003), b, 0.))
    out = {k:(*v, days) for k,v in out.items()}
    if not REAL: return out
    panel,prices = real_market(settings)
    r = prices[1:]/prices[:-1] - 1
    first = 1 + int(np.flatnonzero(np.isnan(r).any(axis=1))[-1])
    return out | {o:(r[first:,CORE.index(o)], r[first:,CORE.index('SPY')], .0001, panel.sessions[1+first:]) for o in ('XLK', 'TLT', 'SPY')}


# ---- what they say

@pytest.fixture(scope='module')
def told(settings, tmp_path_factory):
    "(our side, their answers): every question, asked in one process"
    mine,asked = {},{}
    def ask(case, who, *args): asked.update({f'{case}|{who}|{k}':v for k,v in enumerate(args)})
    for market in ('real', 'random') if REAL else ('random',):
        made = real_market(settings) if market=='real' else random_market()
        for job in JOBS:
            mine[f'{market} {job}'],args = ours(job, market, *made)
            for who in ('bt', 'vectorbt'): ask(f'{market} {job}', who, *args)
            if job=='top 5 monthly':
                for who in ('bt_native', 'vectorbt_native'): ask(f'{market} {job}', who, *args)
    for k,(*series,days) in return_series(settings).items():
        mine[k] = *series,days
        ask(k, 'figures', *series)
        ask(k, 'calendar', series[0], days.astype('datetime64[ns]'))
    for cost in (0., COST) if REAL else ():
        mine[f'spy {cost}'] = spy(settings, cost)
        ask(f'spy {cost}', 'bt_coupons', *mine[f'spy {cost}'][2])
    place = tmp_path_factory.mktemp('told')
    np.savez(place/'questions.npz', **asked)
    python = PEERS/('Scripts' if os.name=='nt' else 'bin')/'python'
    files = place/'questions.npz',place/'answers.npz'
    done = subprocess.run([python, ROOT/'tests'/'peer_curves.py', *files], capture_output=True, text=True,
        env={**os.environ, 'NUMBA_CACHE_DIR':str(PEERS/'numba'), 'OPENBLAS_NUM_THREADS':'1', 'PYTHONPATH':''})
    assert done.returncode==0, done.stderr[-3000:]
    with np.load(files[1]) as f: return mine,{k:f[k] for k in f.files}


@pytest.mark.parametrize('who', ['bt', 'vectorbt'])
@pytest.mark.parametrize('job,market', CASES)
def test_curves_agree(told, who, job, market):
    "From the first session to the last"
    mine,theirs = told[0][f'{market} {job}'],told[1][f'{market} {job}|{who}']
    assert len(mine)>1300 and np.ptp(mine)>.1
    np.testing.assert_allclose(mine, theirs, rtol=1e-9)


@pytest.mark.parametrize('who,least,most', [('bt_native', 1e-4, 5e-4), ('vectorbt_native', 2e-4, 6e-4)])
@pytest.mark.parametrize('market', [pytest.param('real', marks=real)])
def test_another_convention_shows(told, who, least, most, market):
    "What both do unasked, weights of the value before costs, is told apart from an error: by `cost_conventions` in golden.json"
    mine,theirs = told[0][f'{market} top 5 monthly'],told[1][f'{market} top 5 monthly|{who}']
    assert least<np.abs(theirs/mine-1).max()<most


class TestSpyAsTraded:
    pytestmark = real

    @pytest.mark.parametrize('cost', [0., COST])
    def test_bt_pays_the_same_dividends(self, told, cost):
        np.testing.assert_allclose(told[0][f'spy {cost}'][0], told[1][f'spy {cost}|bt_coupons'], rtol=1e-9)

    def test_reinvested_without_cost_is_total_return(self, told):
        nav,_,_,tr = told[0]['spy 0.0']
        np.testing.assert_allclose(nav, tr/tr[0], rtol=1e-12)

    def test_calendar_years(self, told):
        """Percent, against published figures, which are rounded and made backwards: prices multiplied by 1 - D/P of the session before,
        dividends read from factors of seven digits. Forward and backward agree unless a price moves far on an ex-date. In 2020 one did:
        2020-03-20 was an ex-date on which SPY fell by 4.9 %, and P + D over P_before is not P over P_before - D."""
        nav,days,_,_ = told[0]['spy 0.0']
        years = metrics.calendar_returns(series(nav, days), 'year').set_index('period')['return']
        golden = json.loads(GOLDEN.read_text())['spy_calendar_year_total_return_percent']
        for year in ('2008', '2009', '2010', '2013', '2018', '2019', '2020'):
            assert abs(100*years[year]-golden[year])<(.05 if year=='2020' else .02), (year, years[year])


# ---- figures

SERIES = ['normal', 'jumps', 'losses', 'levered', *(pytest.param(o, marks=real) for o in ('XLK', 'TLT', 'SPY'))]


@pytest.mark.parametrize('name', SERIES)
def test_figures_agree(told, name):
    r,b,f,_ = told[0][name]
    m = metrics
    mine = dict(total_return=m.total_return(r), annual_return=m.annual_return(r, 252), annual_volatility=m.annual_volatility(r, 252),
        sharpe=m.sharpe(r, 252, f), sortino=m.sortino(r, 252, f), downside_risk=m.downside_risk(r, 252, f), max_drawdown=m.max_drawdown(r),
        calmar=m.calmar(r, 252), value_at_risk=m.value_at_risk(r), expected_shortfall=m.expected_shortfall(r), beta=m.beta(r, b, f),
        alpha=m.alpha(r, b, 252, f))
    for k,v in mine.items(): np.testing.assert_allclose(v, told[1][f'{name}|figures|{k}'], rtol=1e-9, atol=1e-12, err_msg=k)


@pytest.mark.parametrize('by', ['year', 'month'])
@pytest.mark.parametrize('name', SERIES)
def test_calendar_returns_agree(told, name, by):
    "empyrical counts the first period from its first return; so do we, if the level before it is dated before it"
    r,_,_,days = told[0][name]
    nav = series(np.cumprod(np.append(1, 1+r)), np.append(days[0]-1, days))
    mine,theirs = metrics.calendar_returns(nav, by)['return'],told[1][f'{name}|calendar|{by}']
    np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('name', SERIES)
def test_an_information_ratio_is_per_year(told, name):
    "Here, as all of a report is; empyrical's excess_sharpe is per session. SPY against itself has none, here and there"
    r,b,_,_ = told[0][name]
    np.testing.assert_allclose(metrics.information_ratio(r, b, 252), 252**.5*told[1][f'{name}|figures|excess_sharpe'], rtol=1e-9)


def test_beta_is_of_excess_returns(told):
    "empyrical accepts a return of cash for beta and does not subtract it, which shows where it varies; alpha is what beta leaves over"
    r,b,f,_ = told[0]['levered']
    assert abs(metrics.beta(r, b, f)-told[1]['levered|figures|beta_of_totals'])>1e-5
    np.testing.assert_allclose(metrics.beta(r, b), told[1]['levered|figures|beta_of_totals'], rtol=1e-9)


def test_no_volatility_has_no_sharpe_ratio(told):
    "The same return every day: undefined here, mean over a rounding error there"
    assert np.isnan(metrics.sharpe(told[0]['same'][0], 252)) and abs(told[1]['same|figures|sharpe'])>1e12
