"""Reference numbers from outside: real vendor files and the reference rotation. Skipped, with the reason, where the files are absent."""
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from quantetf.backtest.audit import audit
from quantetf.backtest.engine import backtest
from quantetf.backtest.run import _checks
from quantetf.core import ParameterError, find_settings
from quantetf.data.ingest import ingest
from quantetf.data.snapshot import open_snapshot
from quantetf.data.view import load_panel
from quantetf.production.proposal import propose
from quantetf.production.runtime import produce
from quantetf.strategy import load_strategy, make_strategy

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get('QUANTETF_REAL_DATA') or ROOT.parent/'shared'/'data')
GOLDEN = SHARED.parent/'golden'
absent = pytest.mark.skipif(not (SHARED/'yahoo_daily').is_dir(), reason='the folder yahoo_daily of real market data is absent')
real = [pytest.mark.real_data, absent]


@pytest.fixture(scope='module')
def settings(tmp_path_factory):
    "The project's own configs, data and runs in a folder of their own"
    place = tmp_path_factory.mktemp('golden')
    return replace(find_settings(ROOT, environ={}), data=place/'data', runs=place/'runs')


@pytest.fixture(scope='module')
def us33(settings): return ingest('csv', SHARED/'yahoo_daily', 'us33', settings)


@pytest.fixture(scope='module')
def adjusted(settings): return ingest('csv', SHARED/'yahoo_daily', 'us33_adjusted', settings, prices='adjusted')


class TestRealData:
    pytestmark = real

    def test_the_packet_names_the_reference_picks(self, settings, us33):
        packet = produce('2024-06-28', 'core20_momentum', 'us33', settings=settings)
        rows = packet.data['rows']
        picks = json.loads((GOLDEN/'golden.json').read_text())['momentum_rotation']['picks_2024_06_28']
        assert sorted(o['ticker'] for o in rows if o['target_weight'])==picks==['GLD', 'QQQ', 'SLV', 'XLF', 'XLK']
        assert all(abs(o['target_weight']-.198)<1e-12 for o in rows)

    def test_share_counts_are_empty_where_splits_may_be_hidden(self, settings, us33):
        packet = produce('2024-06-28', 'core20_momentum', 'us33', settings=settings)
        assert all(o[k] is None for o in packet.data['rows'] for k in ('current_shares', 'target_shares', 'delta_shares'))
        assert 'splits up to 2026-05-01' in packet.data['shares_note'] and 'Share counts are left empty' in packet.report.read_text()
        lines = pd.read_csv(packet.folder/'recommendations.csv')
        assert lines.delta_shares.isna().all() and lines.notional.notna().all()

    def test_a_snapshot_that_ends_on_the_date_has_whole_shares(self, settings, us33):
        packet = produce(str(us33.last), 'core20_momentum', 'us33', force=True, settings=settings)
        shares = [o['delta_shares'] for o in packet.data['rows']]
        assert packet.data['shares_note'] is None and all(s>0 and s==int(s) for s in shares)

    def test_holdings_in_shares_are_refused_where_they_cannot_be_valued(self, settings, us33, tmp_path):
        (tmp_path/'mine.csv').write_text('ticker,shares\nXLK,10\nCASH,100\n')
        with pytest.raises(ParameterError, match='holdings in shares cannot be valued'):
            produce('2024-06-28', 'core20_momentum', 'us33', holdings=str(tmp_path/'mine.csv'), settings=settings)

    def test_the_reference_strategy_does_not_look_ahead(self, settings, us33):
        found = audit(load_strategy('core20_momentum', settings), us33, sample=4, quick=True)
        assert found.status=='PASS', found.headline

    def test_a_fund_held_through_a_hole_is_named(self, settings):
        "LEAN's QQQ has no bars from 2004-12 to 2011-03"
        lean = ingest('csv', SHARED/'lean', 'lean', settings)
        parts = dict(universe=dict(kind='static', tickers=['SPY', 'QQQ', 'IWM']),
            features=dict(mom=dict(kind='momentum', lookback=252, skip=21)),
            alpha=dict(kind='rank', feature='mom'), portfolio=dict(kind='top_n_equal', n=3))
        check = {o['name']:o for o in _checks(backtest(make_strategy(parts), lean, '2003-01-02'))}['prices while held']
        assert check['status']=='WARN' and 'QQQ for 1588 sessions, 2004-12-01 to 2011-03-22' in check['evidence']
        check = {o['name']:o for o in _checks(backtest(make_strategy(parts), lean, '2012-06-01'))}['prices while held']
        assert check['status']=='PASS'

    def test_the_reference_curve(self, settings, adjusted):
        result = backtest(load_strategy('golden_rotation', settings), adjusted, '2007-06-29', '2024-06-28', capital=1.)
        golden = pd.read_csv(GOLDEN/'momentum_top5_equity.csv', parse_dates=['date'])
        assert (result.frame.index==pd.DatetimeIndex(golden.date)).all()
        np.testing.assert_allclose(result.nav, golden.equity, rtol=1e-10)

    def test_the_reference_weights(self, settings, adjusted):
        result = backtest(load_strategy('golden_rotation', settings), adjusted, '2007-06-29', '2024-06-28', capital=1.)
        golden = pd.read_csv(GOLDEN/'momentum_top5_weights.csv', index_col=0)
        weights = pd.DataFrame(result.decision.weights, result.sessions[result.rows-result.account.start].astype(str), result.panel.ids)
        assert (weights.index==golden.index).all() and len(golden)==205
        np.testing.assert_allclose(weights[golden.columns], golden, atol=1e-15)
        assert weights.drop(columns=golden.columns).to_numpy().sum()==0

    def test_the_benchmark_is_the_vendors_adjusted_close(self, settings, adjusted):
        result = backtest(load_strategy('golden_rotation', settings), adjusted, '2007-06-29', '2024-06-28', capital=1.)
        spy = pd.read_csv(SHARED/'yahoo_daily'/'SPY.csv', index_col=0).AdjClose
        np.testing.assert_allclose(result.benchmark_nav[-1], spy['2024-06-28']/spy['2007-06-29'], rtol=1e-12)


@pytest.mark.parametrize('dataset,strategy', [('demo', 'demo_momentum'), pytest.param('us33', 'core20_momentum', marks=real)])
def test_a_packet_on_data_that_end_tonight_decides_as_the_backtest_did(dataset, strategy, settings, request):
    "Same funds, same weights: on a snapshot cut at the date, and in the backtest on everything"
    if dataset=='us33': request.getfixturevalue('us33')
    snapshot,strategy = open_snapshot(dataset, settings),load_strategy(strategy, settings)
    result = backtest(strategy, snapshot)
    for k in range(0, len(result.rows), 23):
        day = str(result.panel.sessions[result.rows[k]])
        tonight = propose(strategy, snapshot.until(day), day)
        assert str(tonight.panel.sessions[-1])==day
        def held(ids, weights): return {i:w for i,w in zip(ids.tolist(), weights, strict=True) if w}
        assert held(tonight.panel.ids, tonight.target)==held(result.panel.ids, result.decision.weights[k]), day


def test_nav_of_the_demo_is_conserved(settings):
    "Change of net asset value = price changes + dividends + interest - costs, on every session, from as-traded prices"
    result = backtest(load_strategy('demo_momentum', settings), open_snapshot('demo', settings))
    a,panel = result.account,load_panel(open_snapshot('demo', settings))
    f,e,rows = panel._fields,panel._events,np.arange(a.start, a.end+1)
    split,close = f['split'],pd.DataFrame(f['close']).ffill().to_numpy()
    per_unit = np.cumprod(split, axis=0)
    shares = a.units[np.searchsorted(a.fills, rows, side='right')]*per_unit[rows] # Held after each close, by today's count
    gain = np.zeros(len(rows))
    for t in range(1, len(rows)):
        r,held = rows[t],a.units[np.searchsorted(a.fills, rows[t])]*per_unit[rows[t]] # Held at the open
        gone = e.closed==r-1
        after = np.where(gone, np.where(np.isnan(e.value), close[r-1], e.value), close[r])
        alive = (e.closed>=r-1)
        gain[t] = np.sum((held*(after - close[r-1]/split[r]))[alive & (held!=0)])
        gain[t] += sum(held[j]*c for j,c in zip(e.col[e.ex==r], e.cash[e.ex==r], strict=True))
        gain[t] += a.cash[t-1]*panel.rate[r-1]*(panel.sessions[r]-panel.sessions[r-1]).astype(int)/365
    paid = np.zeros(len(rows))
    np.add.at(paid, a.fills-a.start, a.costs.sum(axis=1))
    np.testing.assert_allclose(np.diff(result.nav)/result.nav[1:], (gain-paid)[1:]/result.nav[1:], atol=1e-9)
    assert np.abs(shares).sum()>0 and a.costs.sum()>0 and (e.cash>0).any()
