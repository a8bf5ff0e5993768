"""Features and alphas against other people's arithmetic, and the promises that one market alone does not test."""
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quantetf import windows
from quantetf.alpha import DualMomentum, Rank, RegimeSwitch
from quantetf.calendars import sessions_between
from quantetf.crosssection import Winsorise, ZScore, percentile_rank, zscores
from quantetf.data.check import check_component, sample_panel
from quantetf.data.view import Panel
from quantetf.features import (
    Momentum,
    MomentumBlend,
    ResidualMomentum,
    Reversal,
    RiskAdjustedMomentum,
    TimeSeriesMomentum,
    Volatility,
)
from quantetf.market import Beta, Correlation, DistributionYield, DollarVolume
from quantetf.strategy import make_strategy, strategy_config
from quantetf.trend import DistanceFromHigh, MaxDrawdown, SMATrend
from quantetf.universe import Universe
from quantetf.volatility import DownsideDeviation, EWMAVolatility, GarmanKlassVolatility, ParkinsonVolatility

ROOT = Path(__file__).resolve().parent.parent
YAHOO = Path(os.environ.get('QUANTETF_REAL_DATA') or ROOT.parent/'shared'/'data')/'yahoo_daily'
absent = pytest.mark.skipif(not YAHOO.is_dir(), reason='the folder yahoo_daily of real market data is absent')
# With the sessions that each reads
READS = [(Momentum(60, 5), 66), (MomentumBlend((21, 60), 5), 66), (RiskAdjustedMomentum(60, 5), 66), (Reversal(21), 27),
    (ResidualMomentum('CORE', window=90, lookback=60, skip=5), 91), (TimeSeriesMomentum(60, scaled=True, vol_window=60), 66),
    (Volatility(60), 61), (EWMAVolatility(window=60), 61), (ParkinsonVolatility(60), 60), (GarmanKlassVolatility(60), 60),
    (DownsideDeviation(60), 61), (SMATrend(60), 60), (DistanceFromHigh(60), 60), (MaxDrawdown(60), 60), (Beta('CORE', 60), 61),
    (Correlation('CORE', 60), 61), (DistributionYield(60), 60), (DollarVolume(60), 60)]


def name(o): return getattr(type(o), '_kind', None)


def cut(panel, first):
    "The panel as if history began at a row"
    facts = {k:list(v) for k,v in panel._facts.items()}
    return Panel(panel.sessions[first:], panel.ids, {k:v[first:] for k,v in panel._fields.items()}, facts=facts, rate=panel.rate[first:])


@pytest.fixture(scope='module')
def nearly_complete():
    "No gaps but one, so that some evenings have none in their window and others do"
    p = sample_panel()
    keep = [j for j,o in enumerate(p.ids) if o not in ('GONE', 'LATE')]
    fields = {k:pd.DataFrame(v[:,keep]).ffill().to_numpy() for k,v in p._fields.items()}
    for k in ('open', 'high', 'low', 'close', 'tr', 'volume'):
        fields[k] = fields[k].copy()
        fields[k][450,2] = np.nan
    facts = dict(ticker=[o for o in p._facts['ticker'] if o.id in p.ids[keep]])
    return Panel(p.sessions, p.ids[keep], fields, facts=facts, rate=p.rate)


@pytest.mark.parametrize('f', [f for f,_ in READS], ids=name)
def test_a_gap_of_one_evening_does_not_touch_another(f, nearly_complete):
    "Complete windows take a shorter way, which must not lead to other bits"
    check_component(f, nearly_complete)


@pytest.mark.parametrize('f', [f for f,_ in READS], ids=name)
def test_pieces_make_no_difference(f, nearly_complete, monkeypatch):
    view = nearly_complete.view(nearly_complete.sessions[400:500])
    whole = f.compute(view)
    monkeypatch.setattr(windows.roll_fields, '__defaults__', (0, 1))
    assert f.compute(view).tobytes()==whole.tobytes()
    assert np.isfinite(whole).any()


@pytest.mark.parametrize('f,n', READS, ids=lambda o: name(o))
def test_nothing_before_the_window_counts(f, n):
    panel = sample_panel()
    day = panel.sessions[-1]
    assert f.compute(cut(panel, len(panel.sessions)-n).view(day)).tobytes()==f.compute(panel.view(day)).tobytes()


def test_the_regime_does_not_remember():
    panel,day = sample_panel(),'2024-06-28'
    f = RegimeSwitch('CORE', Rank('mom'), Rank('mom'), trend_window=50, memory=63, vol_window=21)
    begin = len(panel.sessions)-(63+49)
    assert f.state(panel.view(day))==f.state(cut(panel, begin).view(day))!=-1
    assert f.state(cut(panel, begin+40).view(day))==-1


class TestAcrossFunds:
    x = hnp.arrays(float, (3, 7), elements=st.one_of(st.just(np.nan), st.integers(-50, 50).map(float)))

    @settings(max_examples=60, deadline=None)
    @given(x)
    def test_ranks(self, x):
        r = percentile_rank(x)
        want = pd.DataFrame(x).rank(axis=1)
        n = want.count(axis=1).to_numpy()[:,None]
        np.testing.assert_allclose(r, np.where(n>1, (want.to_numpy()-1)/np.where(n>1, n-1, 1), np.nan), atol=1e-15)
        np.testing.assert_array_equal(percentile_rank(np.exp(x/50)), r)
        np.testing.assert_array_equal(percentile_rank(x[:,::-1])[:,::-1], r)

    @settings(max_examples=60, deadline=None)
    @given(x)
    def test_z_scores(self, x):
        z = zscores(x)
        np.testing.assert_allclose(zscores(7*x-3), z, atol=1e-12)
        np.testing.assert_allclose(zscores(x[:,::-1])[:,::-1], z, atol=1e-12)
        some = ~np.isnan(z).all(axis=1)
        assert (some==(np.nan_to_num(pd.DataFrame(x).std(axis=1, ddof=0))>0)).all()
        np.testing.assert_allclose(np.nansum(z[some], axis=1), 0, atol=1e-12)
        np.testing.assert_allclose(np.nanmean(z[some]**2, axis=1), 1, atol=1e-12)

    def test_a_fund_outside_the_universe_moves_nobody(self):
        panel = sample_panel()
        view,f = panel.view('2024-06-28'),ZScore(Winsorise(Momentum(), .1))
        for out in range(8):
            mask = np.arange(8)[None]!=out
            ids = panel.ids[mask[0]]
            alone = Panel(panel.sessions, ids, {k:v[:,mask[0]] for k,v in panel._fields.items()}).view('2024-06-28')
            z = f.compute(view, Universe(mask, None))
            assert np.isnan(z[0,out])
            np.testing.assert_allclose(z[:,mask[0]], f.compute(alone, None), rtol=1e-12)


def test_a_strategy_of_nested_parts_survives_the_way_through_its_config():
    zmom = dict(kind='zscore', of=dict(kind='winsorise', of=dict(kind='momentum_blend', lookbacks=[63, 126])))
    parts = dict(universe=dict(kind='static', tickers=['BOND', 'CORE', 'EMKT', 'GOLD']),
        features=dict(mom=zmom, trend=dict(kind='sma_trend'), vol=dict(kind='ewma_volatility', half_life=21)),
        alpha=dict(kind='regime_switch', benchmark='CORE', trend_window=50, memory=63,
            up_calm=dict(kind='composite', weights=dict(mom=1, vol=-.5)),
            up_turbulent=dict(kind='trend_gated', gate='trend', of=dict(kind='rank_average', features=['mom', 'vol'], ascending=['vol']))),
        portfolio=dict(kind='top_n_equal', n=2))
    strategy = make_strategy(parts)
    assert make_strategy(strategy_config(strategy))==strategy
    decision = strategy.decide(sample_panel().view(['2023-12-29', '2024-03-28', '2024-06-28']))
    states = strategy.alpha.state(decision.view)
    assert [o=='ok' for o in decision.status]==[(~np.isnan(s)).sum()>=2 for s in decision.signals.scores]
    assert (np.isnan(decision.signals.scores).all(axis=1)>=(states>=2)).all()


# ---- real prices

@pytest.fixture(scope='module')
def yahoo():
    "Frames of real fields by name, and their panel: closes divided by splits, total return from the vendor's adjusted close"
    tickers = ['AGG', 'BIL', 'EFA', 'GLD', 'IEF', 'QQQ', 'SPY', 'TLT', 'USO', 'XLE']
    each = {o:pd.read_csv(YAHOO/f'{o}.csv', index_col=0, parse_dates=True) for o in [*tickers, '_IRX']}
    def frame(column): return pd.concat({o:each[o][column] for o in tickers}, axis=1)
    f = {k.lower():frame(k) for k in ('Open', 'High', 'Low', 'Close', 'Volume')}
    f |= dict(tr=frame('AdjClose'), cash=frame('Dividends').fillna(0))
    rate = each['_IRX'].Close.reindex(f['close'].index, method='ffill')/100
    fields = {k:v.to_numpy(float) for k,v in f.items()} | dict(split=np.ones(f['close'].shape))
    panel = Panel(f['close'].index.to_numpy(), tickers, fields, rate=rate.to_numpy(), basis=['split_adjusted']*len(tickers))
    return f | dict(rate=rate), panel


def month_ends(f):
    days = f['close'].index.to_series()
    return days.groupby([days.dt.year, days.dt.month]).last()


@pytest.mark.real_data
@absent
class TestRealPrices:
    def compare(self, f, yahoo, want, rtol=1e-9, some=.5):
        "A feature on all month ends against a frame of all sessions"
        frames,panel = yahoo
        days = month_ends(frames)
        got,want = f.compute(panel.view(days.to_numpy())),want.reindex(days).to_numpy()
        both = ~np.isnan(got) & ~np.isnan(want)
        assert both.mean()>some and (np.isnan(got)==np.isnan(want)).all()
        np.testing.assert_allclose(got[both], want[both], rtol=rtol, atol=1e-12)

    def test_returns(self, yahoo):
        tr = yahoo[0]['tr']
        self.compare(Momentum(), yahoo, tr.shift(21)/tr.shift(252)-1)
        self.compare(MomentumBlend((63, 126), 0), yahoo, (tr.pct_change(63)+tr.pct_change(126))/2)
        self.compare(Reversal(), yahoo, -tr.pct_change(21))
        sd = np.log(tr).diff().rolling(231, min_periods=208).std().shift(21)
        self.compare(RiskAdjustedMomentum(), yahoo, (tr.shift(21)/tr.shift(252)-1)/(252**.5*sd), 1e-7)

    def test_risk(self, yahoo):
        frames,_ = yahoo
        r,h,l,o,c = np.log(frames['tr']).diff(),*(np.log(frames[k]) for k in ('high', 'low', 'open', 'close'))
        self.compare(Volatility(60), yahoo, 252**.5*r.rolling(60, min_periods=54).std(), 1e-8)
        self.compare(DownsideDeviation(), yahoo, (252*r.clip(upper=0).pow(2).rolling(126, min_periods=114).mean())**.5, 1e-7)
        bars = (h>=o) & (h>=c) & (l<=o) & (l<=c)
        self.compare(ParkinsonVolatility(), yahoo, (252*((h-l)**2/(4*np.log(2))).rolling(63, min_periods=57).mean())**.5, 1e-7)
        gk = (.5*(h-l)**2 - (2*np.log(2)-1)*(c-o)**2).where(bars)
        self.compare(GarmanKlassVolatility(), yahoo, (252*gk.rolling(63, min_periods=57).mean())**.5, 1e-7)
        # Unbounded weights differ from those of 252 sessions by what lies before: 0.94 ** 252 is 2e-7
        enough = r.rolling(252, min_periods=227).count()>=227
        self.compare(EWMAVolatility(window=252), yahoo, ((252*r.pow(2).ewm(alpha=.06).mean())**.5).where(enough), 1e-5)

    def test_trend(self, yahoo):
        tr = yahoo[0]['tr']
        self.compare(SMATrend(), yahoo, tr/tr.rolling(200, min_periods=180).mean()-1, 1e-7)
        self.compare(DistanceFromHigh(), yahoo, tr/tr.rolling(252, min_periods=227).max()-1)
        fell = [(d, (w/w.cummax()).min()-1) for d in month_ends(yahoo[0])[12::12] for w in [tr.loc[:d].iloc[-252:]]]
        got = MaxDrawdown().compute(yahoo[1].view([d for d,_ in fell]))
        want = np.array([w for _,w in fell])
        np.testing.assert_allclose(got[~np.isnan(got)], want[~np.isnan(got)], rtol=1e-12)
        spy = MaxDrawdown().compute(yahoo[1].view('2009-03-09'))[0,6]
        assert -.53<spy<-.45, 'the year to the low of 2009'

    def test_market(self, yahoo):
        r = np.log(yahoo[0]['tr']).diff()
        roll = r.rolling(252, min_periods=227)
        self.compare(Correlation('SPY'), yahoo, roll.corr(r.SPY), 1e-6)
        paired = pd.DataFrame({o:r.SPY.where(r[o].notna()) for o in r})
        self.compare(Beta('SPY'), yahoo, roll.cov(r.SPY)/paired.rolling(252, min_periods=227).var(), 1e-6)

    def test_residual_momentum_by_least_squares(self, yahoo):
        r,f = np.log(yahoo[0]['tr']).diff(),ResidualMomentum('SPY')
        for day in month_ends(yahoo[0])[60::37]:
            got = f.compute(yahoo[1].view(day))[0]
            w = r.loc[:day].iloc[-756:]
            for j,o in enumerate(w):
                if o=='SPY' or w[o].isna().any(): continue
                X = np.column_stack([np.ones(756), w.SPY])
                e = (w[o] - X@np.linalg.lstsq(X, w[o], rcond=None)[0]).iloc[-252:-21]
                np.testing.assert_allclose(got[j], 252**.5*e.mean()/e.std(), rtol=1e-8, atol=1e-9)
            assert np.isnan(got[6])

    def test_income_and_liquidity(self, yahoo):
        frames,_ = yahoo
        want = (frames['cash'].rolling(252).sum()/frames['close']).where(frames['close'].rolling(252, min_periods=227).count()>=227)
        self.compare(DistributionYield(), yahoo, want, 1e-9)
        self.compare(DollarVolume(), yahoo, (frames['close']*frames['volume']).rolling(63, min_periods=57).median())

    def test_dual_momentum_against_cash_and_against_bills(self, yahoo):
        "A loop over month ends with the rate of each evening, by calendar days; and BIL in its place"
        frames,panel = yahoo
        tr,days = frames['tr'],month_ends(frames)[24::9]
        view = panel.view(days.to_numpy())
        everybody = Universe(np.ones((len(days), 10), bool), None)
        cash,bills = (DualMomentum(against=o).score(view, everybody, {}) for o in (None, 'BIL'))
        for i,d in enumerate(days):
            span = tr.loc[:d].iloc[-253:]
            m = (span.iloc[-1]/span.iloc[0]-1).to_numpy()
            earned = 1.
            for a,b in zip(span.index[:-1], span.index[1:], strict=True): earned *= 1 + frames['rate'][a]*(b-a).days/365
            np.testing.assert_allclose(cash[i], np.where(m>earned-1, m, np.nan), rtol=1e-12)
            np.testing.assert_allclose(bills[i], np.where(m>m[1], m, np.nan), rtol=1e-12)
        assert np.isnan(cash).mean()>.2 and np.isnan(bills[:,1]).all()
        assert (np.isnan(cash)==np.isnan(bills))[np.isfinite(bills).any(axis=1)].mean()>.9, 'bills and their rate tell the same story'


@pytest.mark.parametrize('width', [2, 7, 61, 400])
def test_the_short_way_of_complete_evenings_depends_on_nothing_else(width):
    "Evenings with and without gaps beside each other, of data that go on or end there: the same bits; and the numbers of pandas"
    rng = np.random.default_rng(width)
    days = sessions_between('2021-01-04', '2024-06-28')
    tr = np.exp(np.cumsum(.01*rng.standard_normal((len(days), width)), axis=0))
    tr[300,1] = tr[500,0] = np.nan
    panel = Panel(days, [f'F{k:03d}' for k in range(width)], dict(close=tr, tr=tr))
    view = panel.view(days[[299, 301, 450, 499, 520, 760, 761]])
    for f in (Beta('F000', 63), Correlation('F001', 126), ResidualMomentum('F000', 200, 126, 5)):
        x = f.compute(view)
        for k,day in enumerate(view.sessions):
            assert f.compute(panel.until(day).view(day)).tobytes()==x[k:k+1].tobytes()
    r = pd.DataFrame(np.log(tr)).diff().to_numpy()
    for k,t in enumerate([299, 301, 450, 499, 520, 760, 761]):
        w = pd.DataFrame(r[t-62:t+1])
        want = [w[j].cov(w[0])/w[0][w[j].notna()].var() for j in range(width)]
        np.testing.assert_allclose(Beta('F000', 63).compute(view)[k], want, rtol=1e-9)
