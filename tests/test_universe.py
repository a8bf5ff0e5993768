"""Universes and filters against pandas, SciPy and plain loops, on invented and on real prices."""
import json
import os
import zipfile
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as rules
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

from quantetf.backtest.engine import backtest
from quantetf.core import ConfigError, ParameterError, Settings
from quantetf.data.check import check_component, sample_panel
from quantetf.data.ingest import ingest
from quantetf.data.view import Fact, Panel, load_panel
from quantetf.filters import (
    AssetClass,
    Category,
    DataQuality,
    MinDollarVolume,
    OneOfEach,
    Price,
    TopK,
    Unleveraged,
    _longest_run,
    correlations,
    geared_by_name,
    keep_first,
    ranks,
)
from quantetf.store import content_hash
from quantetf.strategy import make_strategy, strategy_config
from quantetf.universe import All, Intersection, LevelError, MinAge, Static, Union, dollar_volume, median_known, membership_counts

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get('QUANTETF_REAL_DATA') or ROOT.parent/'shared'/'data')
absent = pytest.mark.skipif(not (SHARED/'yahoo_daily').is_dir(), reason='the folder yahoo_daily of real market data is absent')
real = [pytest.mark.real_data, absent]
YAHOO = 'as_traded', 'split_adjusted'


@pytest.fixture(scope='module')
def panel(): return sample_panel()


# ---- numbers

@rules(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(0, 2**32-1), st.floats(0, 1), st.integers(1, 9))
def test_the_median_is_numpys(n, seed, lost, need):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 5, (2, n, 3)).astype(float)
    x[rng.random(x.shape)<lost] = np.nan
    known = (~np.isnan(x)).sum(axis=1)
    want = np.array([[np.median(o[~np.isnan(o)]) if (~np.isnan(o)).any() else np.nan for o in row.T] for row in x])
    np.testing.assert_array_equal(median_known(x, need), np.where(known>=need, want, np.nan))


def test_dollar_volume_is_the_same_bits_in_pieces(panel):
    v = panel.view(panel.sessions[::7])
    whole = dollar_volume(v)
    assert dollar_volume(v, max_bytes=1).tobytes()==whole.tobytes()
    assert dollar_volume(v, columns=[2, 5]).tobytes()==whole[:,[2, 5]].tobytes()


@rules(max_examples=40, deadline=None)
@given(st.integers(0, 2**32-1), st.integers(1, 12))
def test_the_longest_run_is_that_of_a_loop(seed, n):
    x = np.random.default_rng(seed).random((2, n, 4))<.6
    want = [[max((len(list(g)) for k,g in groupby(x[i,:,j]) if k), default=0) for j in range(4)] for i in range(2)]
    assert _longest_run(x).tolist()==want


def test_equal_liquidity_is_ranked_by_id():
    assert ranks(np.array([[2., 3, 2, np.nan, 3]]))[0,[0, 1, 2, 4]].tolist()==[2, 0, 3, 1]


# ---- one of each

def invented(seed, series=24, sessions=90, gaps=.02):
    "Returns in a few groups, some loosely tied"
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 6, series)
    r = rng.standard_normal((sessions, 6))[:,group] + rng.choice([.05, .3, 1.], series)*rng.standard_normal((sessions, series))
    r[rng.random(r.shape)<gaps*(rng.random(series)<.5)] = np.nan
    return .01*r


@rules(max_examples=40, deadline=None)
@given(st.integers(0, 2**32-1), st.sampled_from([1, 5, 256]))
def test_what_is_kept_is_a_greedy_independent_set(seed, block):
    "By pandas' correlations: no two that stay are alike, and each that goes is like a preferred one that stays, the first such"
    r = invented(seed)
    rho = pd.DataFrame(r).corr().to_numpy()
    np.testing.assert_allclose(correlations(r, r), rho, atol=1e-12)
    by,said = keep_first(r, .8, block)
    stay = []
    for i in range(len(rho)):
        like = [k for k in stay if rho[i,k]>.8]
        assert by[i]==(like[0] if like else i)
        assert abs(said[i]-rho[i,by[i]])<1e-12
        if not like: stay.append(i)


@rules(max_examples=40, deadline=None)
@given(st.integers(0, 2**32-1))
def test_against_the_components_of_the_graph(seed):
    "The preferred one of each component stays; where every component is a clique, nobody else does"
    r = invented(seed)
    alike = pd.DataFrame(r).corr().to_numpy()>.8
    n,label = connected_components(alike, directed=False)
    kept = np.flatnonzero(keep_first(r, .8)[0]==np.arange(len(label)))
    first = [int(np.flatnonzero(label==k)[0]) for k in range(n)]
    assert set(first)<=set(kept.tolist())
    if all(alike[np.ix_(label==k, label==k)].all() for k in range(n)): assert sorted(first)==kept.tolist()


def test_series_that_do_not_move_are_like_nobody():
    r = np.c_[np.full(60, .0001), np.full(60, .0001), np.random.default_rng(0).normal(0, .01, 60)]
    assert keep_first(r, .9)[0].tolist()==[0, 1, 2]
    r[3,1] = np.nan
    assert keep_first(r, .9)[0].tolist()==[0, 1, 2]


# ---- composition

def test_filters_are_asked_in_order_and_about_those_left(panel):
    v = panel.view(panel.sessions[300::40])
    cheap_first,large_first = (All(filters=f).members(v) for f in ((Price(max_usd=150), TopK(k=3)), (TopK(k=3), Price(max_usd=150))))
    assert (cheap_first.mask.sum(axis=1)==3).all()
    assert (large_first.mask.sum(axis=1)<3).all()
    price = v.lag('close')
    assert not (cheap_first.mask & (price>150)).any()
    assert ((cheap_first.reason=='')==cheap_first.mask).all()


def test_a_filter_of_somebody_elses_needs_members_only(panel):
    class Even:
        def members(self, view):
            from quantetf.universe import Universe
            mask = np.broadcast_to(np.arange(len(view.ids))%2==0, (len(view), len(view.ids)))
            return Universe(mask, np.where(mask, '', 'odd'), view)
    u = All(filters=(Even(), TopK(k=2))).members(panel.view(panel.sessions[-1]))
    assert u.view.ids[u.mask[0]].tolist()==['BOND', 'REIT']
    assert u.reason[0,1:3].tolist()==['odd', 'rank 3 by dollar volume, 2 are taken']


def test_reasons_are_made_once_and_only_when_asked_for(panel):
    u = All(filters=(MinAge(252), TopK(k=3), OneOfEach())).members(panel.view(panel.sessions[300::40]))
    assert 'reason' not in vars(u)
    assert ((u.reason=='')==u.mask).all() and u.reason is u.reason
    assert (u[2].reason==u.reason[2:3]).all() and membership_counts(u).to_numpy().sum()==u.mask.size


@pytest.mark.parametrize('a,b', [(['CORE', 'BOND'], ['BOND', 'LATE']), (['GOLD'], ['TECH', 'GONE'])])
def test_unions_and_intersections_are_those_of_sets(panel, a, b):
    v = panel.view(panel.sessions[50::60])
    parts = Static(a, filters=(MinAge(60),)),Static(b, filters=(TopK(k=1),))
    one,two = (o.members(v) for o in parts)
    either,both = Union(parts).members(v),Intersection(parts).members(v)
    assert (either.mask==(one.mask | two.mask)).all() and (both.mask==(one.mask & two.mask)).all()
    for u in either,both: assert ((u.reason=='')==u.mask).all()
    assert set(either.view.ids[(either.reason!='not in the list').any(axis=0)])==set(a)|set(b)


def nested():
    return {'universe':{'kind':'union', 'of':[{'kind':'static', 'tickers':['CORE', 'BOND'], 'chosen_on':'2021-05-03', 'how':'by hand'},
        {'kind':'all', 'chosen_on':'2022-01-03', 'filters':[{'kind':'min_age', 'sessions':130},
            {'kind':'top_k', 'k':3, 'accept':['as_traded']}]}],
        'filters':[{'kind':'one_of_each', 'correlation':.95}]}, 'features':{'mom':{'kind':'momentum', 'lookback':63, 'skip':5}},
        'alpha':{'kind':'rank', 'feature':'mom'}, 'portfolio':{'kind':'top_n_equal', 'n':2}}


def test_a_nested_universe_from_a_config_to_a_backtest(panel):
    strategy = make_strategy(nested(), 'nested')
    assert (strategy.universe.chosen_on, strategy.universe.how)==('2022-01-03', 'by hand')
    assert make_strategy(strategy_config(strategy), 'nested')==strategy
    u = backtest(strategy, panel).decision.signals.universe
    assert u.mask.any(axis=1).all() and u.mask.sum(axis=1).max()<=5
    assert {type(o).__name__ for o in strategy.components}>={'Union', 'Static', 'All', 'MinAge', 'TopK', 'OneOfEach'}
    with pytest.raises(ConfigError, match=r'universe.of\[1\].filters\[1\].k'):
        bad = nested()
        bad['universe']['of'][1]['filters'][1]['k'] = 'three'
        make_strategy(bad, 'bad')
    with pytest.raises(ConfigError, match='two universes or more'): make_strategy(nested() | {'universe':{'kind':'union', 'of':[]}}, 'bad')


def test_parameters_that_mean_nothing_are_refused():
    for make in (lambda: TopK(k=0), lambda: MinDollarVolume(usd=-1), lambda: MinDollarVolume(usd=float('nan')),
            lambda: OneOfEach(correlation=1.), lambda: OneOfEach(min_obs=0), lambda: DataQuality(window=1),
            lambda: Price(min_usd=float('nan')), lambda: Category(include=('',)), lambda: All(chosen_on='lately'),
            lambda: Union(Static(['A']))):
        with pytest.raises(ParameterError): make()


def test_levels_are_asked_for_only_where_they_are_read(panel):
    basis = ['total_return' if o=='GONE' else 'as_traded' for o in panel.ids]
    p = Panel(panel.sessions, panel.ids, panel._fields, facts=panel._facts, events=panel._events, basis=basis)
    early,late = p.view(['2024-01-05']),p.view(['2024-03-28'])
    with pytest.raises(LevelError, match='GONE is total return'): All(filters=(MinDollarVolume(usd=1.),)).members(early)
    assert All(filters=(MinDollarVolume(usd=1.),)).members(late).mask.sum()==7 # It has closed
    with pytest.raises(LevelError, match='GONE'): All(filters=(OneOfEach(),)).members(p.view(['2024-03-28', '2024-01-05']))


@pytest.mark.parametrize('name,category', [('ProShares UltraPro QQQ', 'Trading--Leveraged Equity'),
    ('ProShares UltraShort 20+ Year Treasury', 'Trading--Inverse Debt'), ('ProShares Short S&P500', 'Trading--Inverse Equity'),
    ('Direxion Daily Semiconductor Bull 3X Shares', 'Trading--Leveraged Equity'),
    ('ProShares Ultra Silver', 'Trading--Leveraged Commodities'),
    ('PIMCO Enhanced Short Maturity Active ETF', 'Ultrashort Bond'), ('iShares Short Treasury Bond ETF', 'Ultrashort Bond'),
    ('JPMorgan Ultra-Short Income ETF', 'Ultrashort Bond'), ('VanEck Gold Miners ETF', 'Equity Precious Metals'),
    ('SPDR Portfolio Short Term Corporate Bond ETF', 'Short-Term Bond'), ('Vanguard Ultra-Short Bond ETF', 'Ultrashort Bond')])
def test_names_say_what_morningstars_categories_say(name, category): assert geared_by_name(name)==category.startswith('Trading--')


# ---- real prices

@pytest.fixture(scope='module')
def files():
    "The vendor's own tables, by ticker"
    return {f.stem:pd.read_csv(f, index_col='Date', parse_dates=True) for f in sorted((SHARED/'yahoo_daily').glob('[A-Z]*.csv'))}


@pytest.fixture(scope='module')
def wide(files): return {k:pd.DataFrame({t:f[k] for t,f in files.items()}).sort_index() for k in ('Close', 'AdjClose', 'Volume')}


@pytest.fixture(scope='module')
def market(wide):
    days,ids = wide['Close'].index.to_numpy('datetime64[D]'),sorted(wide['Close'])
    about = {t:json.loads((SHARED/'fund_meta'/f'{t}.json').read_text(encoding='utf-8')) for t in ids}
    said = dict(category='category', name='longName')
    facts = {k:[Fact(t, str(days[0]), '2026-05-01', o[key]) for t,o in about.items()] for k,key in said.items()}
    facts['ticker'] = [Fact(t, str(days[0]), str(days[0]), t) for t in ids]
    fields = dict(close=wide['Close'][ids], tr=wide['AdjClose'][ids], volume=wide['Volume'][ids])
    return Panel(days, ids, {k:o.to_numpy(float) for k,o in fields.items()}, facts=facts, basis=['split_adjusted']*len(ids))


@pytest.fixture(scope='module')
def ends(market):
    days = market.sessions
    return market.view(days[np.append(days[1:].astype('M8[M]')!=days[:-1].astype('M8[M]'), True)])


class TestRealPrices:
    pytestmark = real

    def test_dollar_volume_is_pandas_rolling_median(self, market, wide, ends):
        usual = (wide['Close']*wide['Volume'])[list(market.ids)].rolling(63, min_periods=57).median().loc[ends.sessions.astype('M8[ns]')]
        np.testing.assert_allclose(dollar_volume(ends), usual.to_numpy(), rtol=1e-14)
        u = MinDollarVolume(usd=5e7, accept=YAHOO).members(ends)
        assert (u.mask==(usual>=5e7).to_numpy()).all()
        place = usual.rank(axis=1, ascending=False, method='first').to_numpy()
        assert (TopK(k=10, accept=YAHOO).members(ends).mask==(place<=10)).all()

    def test_levels_of_another_day_are_refused(self, ends):
        with pytest.raises(LevelError, match=r'accept: \[as_traded, split_adjusted\]'): TopK(k=10).members(ends)
        with pytest.raises(LevelError, match='a bound on the price'): Price(min_usd=5).members(ends)

    def test_of_each_exposure_the_most_liquid(self, market, wide, ends):
        "Correlations by pandas, components by SciPy; components chain, so they are a lower bound for what stays"
        r = wide['AdjClose'][list(market.ids)].pct_change(fill_method=None)
        usual = (wide['Close']*wide['Volume'])[list(market.ids)].rolling(63, min_periods=57).median()
        u = OneOfEach(correlation=.95, accept=YAHOO).members(ends[60::24])
        for i,day in enumerate(u.view.sessions):
            at = r.index.get_loc(pd.Timestamp(day))
            known = r.iloc[at-251:at+1]
            names = usual.iloc[at][(known.notna().sum()>=227) & usual.iloc[at].notna()].sort_values(ascending=False, kind='stable').index
            rho = known[names].corr()
            kept = []
            for t in names:
                like = next((k for k in kept if rho.loc[t,k]>.95), None)
                why = f'moves like another: {like}, correlation {rho.loc[t,like]:.3f}' if like else ''
                assert u.reason[i,list(market.ids).index(t)]==why
                if not like: kept.append(t)
            assert sorted(u.view.ids[u.mask[i]])==sorted(kept)
            n,label = connected_components(rho.to_numpy()>.95, directed=False)
            assert {names[label==k][0] for k in range(n)}<=set(kept)

    def test_spy_stands_for_its_cheap_twin_and_bonds_for_bonds(self, market):
        u = OneOfEach(correlation=.97, accept=YAHOO).members(market.view('2024-06-28'))
        why = dict(zip(market.ids.tolist(), u.reason[0].tolist()))
        assert why['SPLG'].startswith('moves like another: SPY, correlation 0.99') and why['SPY']==''
        assert why['AGG'].startswith('moves like another: LQD') and why['BND'].startswith('moves like another: LQD') # It trades more
        only = Static(['AGG', 'BND'], filters=(OneOfEach(accept=YAHOO),)).members(market.view('2024-06-28'))
        assert only.mask[0].sum()==1 and only.reason[0,2].startswith('moves like another: AGG, correlation 0.99')
        check_component(OneOfEach(correlation=.95, accept=YAHOO), market, market.sessions[[2500, 4000, 5200]])

    def test_split_adjusted_prices_times_volumes_are_the_dollars_of_the_day(self):
        "LEAN's as-traded bars against Yahoo's, before and after EEM's splits of 2005 and 2008, three for one each"
        yahoo = pd.read_csv(SHARED/'yahoo_daily_eem'/'EEM.csv', skiprows=4, header=None, index_col=0, parse_dates=True,
            names=['day', 'adj', 'close', 'high', 'low', 'open', 'volume'])
        with zipfile.ZipFile(SHARED/'lean'/'eem.zip') as z: lean = pd.read_csv(z.open(z.namelist()[0]), header=None, index_col=0)
        lean.index = pd.to_datetime(lean.index.astype(str).str[:8])
        ratio = (yahoo.close*yahoo.volume/(lean[4]/1e4*lean[5])).dropna()
        for split in '2005-06-09', '2008-07-24':
            before,after = ratio[:split].iloc[-127:-1].median(),ratio[split:].iloc[1:127].median()
            assert abs(np.log(after/before))<.25, f'{before:.2f} {after:.2f}' # A factor of three would be 1.1
            price = (yahoo.close/(lean[4]/1e4)).dropna()
            assert abs(np.log(price[split:].iloc[1:60].median()/price[:split].iloc[-60:-1].median()) - np.log(3))<.01

    def test_a_fund_that_stood_still_is_out_and_a_bill_fund_is_not(self, market, files):
        quality = DataQuality(window=63, max_missing=.02, max_stale=10)
        f = files['USFR'][:'2016-06-08'].iloc[-63:]
        same = (f.Close.diff()==0) & ((f.Volume==0) | (f.Volume.diff()==0))
        run = max(len(list(g)) for k,g in groupby(same) if k)
        u = quality.members(market.view('2016-06-08'))
        why = dict(zip(market.ids.tolist(), u.reason[0].tolist()))
        assert why['USFR']==f'stale: {run} sessions in a row repeat the close before' and run>10
        assert why['BIL']==why['SPY']==''

    def test_inverse_funds_by_category_and_by_name(self, market):
        today = market.view('2024-06-28')
        assert Category(exclude=('Trading--*',)).members(today).reason[0,0]=='category is not known' # Not until the download
        by_category = Category(exclude=('Trading--*',), assume_static=True).members(today)
        by_name = Unleveraged('name', assume_static=True).members(today)
        assert (by_category.mask==by_name.mask).all() and today.ids[~by_name.mask[0]].tolist()==['SQQQ']


# ---- files inside unions and intersections

def test_files_are_read_wherever_they_stand(tmp_path):
    "The lists themselves are in the config that a run is identified by, at any depth, and another list is another run"
    (tmp_path/'universes').mkdir()
    def write(name, text): (tmp_path/'universes'/name).write_text(text)
    write('a.yaml', 'tickers: [CORE, BOND]\nchosen_on: 2021-05-03\n')
    write('b.yaml', 'tickers: [GOLD]\n')
    write('both.yaml', 'kind: union\nof: [{kind: static, file: universes/a.yaml}, {kind: static, file: universes/b.yaml}]\n')
    both = {'file':'universes/both.yaml', 'filters':[{'kind':'min_age'}]}
    config = nested() | {'universe':{'kind':'intersection', 'of':[{'kind':'all'}, both]}}
    def made(): return make_strategy(config, 'files', tmp_path)
    parts = strategy_config(made())['universe']['of'][1]
    assert [o['tickers'] for o in parts['of']]==[['CORE', 'BOND'], ['GOLD']] and parts['filters'][0]['kind']=='min_age'
    assert 'file' not in str(strategy_config(made()))
    before = content_hash(strategy_config(made()))
    write('b.yaml', 'tickers: [TECH]\n')
    assert made().universe.of[1].of[1].tickers==['TECH'] and content_hash(strategy_config(made()))!=before
    write('b.yaml', 'kind: static\nfile: universes/c.yaml\n')
    with pytest.raises(ConfigError, match=r'universe.of\[1\].of\[1\]: kind given here and in universes/b.yaml'): made()
    write('both.yaml', 'kind: union\nof: [{kind: all}, {file: universes/both.yaml}]\n')
    with pytest.raises(ConfigError, match='both.yaml contains itself'): made()
    write('both.yaml', 'kind: union\nof: [{kind: all}, {file: ../../secret.yaml}]\n')
    with pytest.raises(ValueError, match='secret'): made()


# ---- what is known of a fund without a date

CLASSES = dict(zip(sample_panel().ids, ['bond']+['equity']*7))


def undated(tmp_path, stated=''):
    "A dataset whose asset classes come from instruments.csv, and have no dates"
    folder = tmp_path/'prices'
    folder.mkdir(exist_ok=True)
    p = sample_panel()
    for j,id in enumerate(p.ids):
        rows = [f'{d},{c:.4f},{c:.4f},{c:.4f},{c:.4f},{c:.4f},1000000,0' for d,c in zip(p.sessions, p._fields['tr'][:,j]*100) if c==c]
        (folder/f'{id}.csv').write_text('Date,Open,High,Low,Close,AdjClose,Volume,Dividends\n'+'\n'.join(rows)+'\n')
    (folder/'instruments.csv').write_text('ticker,name,asset_class\n'+''.join(f'{k},{k} fund,{v}\n' for k,v in CLASSES.items()))
    if stated: (folder/'facts.csv').write_text(stated)
    place = Settings(tmp_path, tmp_path/'data', ROOT/'configs', tmp_path/'runs')
    return ingest('csv', folder, 'undated', place, prices='adjusted'),place


def test_asset_classes_without_a_date_take_the_strategys_word(tmp_path):
    snapshot,_ = undated(tmp_path)
    panel = load_panel(snapshot)
    view = panel.view(panel.sessions[[300, -1]])
    assert (view.facts('asset_class', object)==None).all() # noqa: E711
    assert (view.facts('asset_class', object, True)==list(CLASSES.values())).all()
    cut = load_panel(snapshot.until(panel.sessions[300]))
    assert (cut.view(cut.sessions[-1]).facts('asset_class', object)==None).all() # noqa: E711
    bonds = AssetClass(include=('bond',), assume_static=True)
    assert panel.ids[bonds.members(view).mask[0]].tolist()==['BOND'] and not AssetClass(include=('bond',)).members(view).mask.any()


def test_dated_classes_come_first(tmp_path):
    snapshot,_ = undated(tmp_path, 'ticker,name,value,effective,known_at\nGOLD,asset_class,gold,2022-06-01,2022-06-10\nTECH,region,US,,\n')
    panel = load_panel(snapshot)
    j = list(panel.ids).index('GOLD')
    said = panel.view(['2022-06-09', '2022-06-10']).facts('asset_class', object)
    assert said[:,j].tolist()==[None, 'gold'] and (np.delete(said, j, axis=1)==None).all() # noqa: E711
    first = panel.view(panel.sessions[:1])
    assert first.facts('region', object)[0,-1] is None and first.facts('region', object, True)[0,-1]=='US'


def test_a_backtest_on_the_strategys_word_says_so(tmp_path):
    "It runs, its audit passes on the facts that it may use, and the report repeats what it rests on"
    from quantetf.backtest.run import run_backtest
    from quantetf.production.runtime import produce
    _,place = undated(tmp_path, 'ticker,name,value\n'+''.join(f'{o},expense_ratio,{.0005*k}\n' for k,o in enumerate(CLASSES)))
    place = replace(place, configs=tmp_path/'configs')
    (place.configs/'strategies').mkdir(parents=True)
    (place.configs/'strategies'/'cheap.yaml').write_text('''
universe:
  kind: all
  filters: [{kind: asset_class, exclude: [bond], assume_static: true}, {kind: expense_ratio, max_bps: 25, assume_static: true}]
features: {mom: {kind: momentum, lookback: 63, skip: 5}}
alpha: {kind: rank, feature: mom}
portfolio: {kind: top_n_equal, n: 2}
''')
    run = run_backtest('cheap', 'undated', settings=place)
    page = run.report.read_text()
    assert 'Used before it was known, because the strategy says so (assume_static: true): asset class and expense ratio' in page
    assert any('asset_class, expense_ratio, fee_bps: taken for known' in o for o in run.data['audit']['blind_spots'])
    held = {o['ticker'] for o in run.data['contribution']['funds']}
    assert held<=set(list(CLASSES)[1:6]) and len(held)>=2
    packet = produce(run.data['weights']['dates'][-1], 'cheap', 'undated', settings=place)
    assert 'assume_static: true' in packet.report.read_text()
