"""The rules of `quantetf.data.quality`: every trap of the real files, every day that was real, and what must hold for any rows"""
import json
import os
import zipfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantetf.calendars import sessions_between
from quantetf.core import DataError
from quantetf.data.quality import RULES, Context, Coverage, CurationReport, Finding, clean, coverage, excursions, last_settled
from quantetf.data.vendors import NUMBERS, Rows

ROOT = Path(__file__).resolve().parent.parent
REAL = Path(os.environ.get('QUANTETF_REAL_DATA', ROOT.parent/'shared'/'data')).resolve()
DAYS = sessions_between('1990-01-01', '2026-12-31')
LEVERAGED = {'yahoo_daily/SQQQ', 'traps/UVXY_matdev83'}


def real(name):
    if not (REAL/name).exists(): pytest.skip(f'no real market data at {REAL/name}')
    return REAL/name


def day(text): return np.datetime64(text, 'D')


# ---- files, read by pandas and not by the package

def rows_of(df, ticker, file, first_row=2):
    names = dict(date='session', timestamp='session', datetime='session', dividends='dividend')
    df = df.rename(columns=lambda c: c.lower().replace(' ', '')).rename(columns=names)
    df = df.assign(session=df.session.astype(str).str[:10].astype('datetime64[s]'), row=np.arange(len(df))+first_row)
    df = df.sort_values('session', kind='stable')
    return Rows.make(ticker, file, df.row, df.session.to_numpy('datetime64[D]'), **{k:df[k].to_numpy(float) for k in NUMBERS if k in df})


def read(path):
    path,ticker = real(path),Path(path).stem.split('_')[0].upper()
    if path.suffix=='.parquet': return rows_of(pd.read_parquet(path), ticker, path.name)
    if path.suffix=='.csv': return rows_of(pd.read_csv(path), ticker, path.name)
    prices = ['open', 'high', 'low', 'close']
    with zipfile.ZipFile(path) as z: df = pd.read_csv(z.open(z.namelist()[0]), header=None, names=['date', *prices, 'volume'])
    df[prices] /= 10_000
    return rows_of(df.assign(date=pd.to_datetime(df.date.str[:8])), ticker, path.name, 1)


def vintage(name, ticker='SPY'): # Three header rows, `Price` is the adjusted close
    path = real(f'yahoo_vintages/{name}/{ticker}.csv')
    head = path.read_text().splitlines()[0].split(',')
    df = pd.read_csv(path, skiprows=4, header=None, names=['date', 'adjclose', *head[2:]])
    assert len(df)>8000
    return rows_of(df, ticker, path.name, 5)


def context(rows, **known): return Context('XNYS', DAYS, rows.session[-1], **known)
def of(found, rule, action=None): return [o for o in found if o.rule==rule and action in (None, o.action)]


@pytest.fixture(scope='module')
def everything():
    "Path without suffix -> rows as sent, rows cleaned, findings, of all daily files"
    real('yahoo_daily')
    files = [o for folder in ('yahoo_daily', 'stooq_qetf', 'stooq_wire', 'lean', 'traps') for o in sorted((REAL/folder).iterdir())]
    files = [o for o in files if o.stem[0]!='_' and '_files' not in o.name]
    out = {}
    for file in files:
        rows = read(str(file.relative_to(REAL)))
        out[f'{file.parent.name}/{file.stem}'] = rows,*clean(rows, rows.ticker, context(rows))
    return out


# ---- what is taken out of the real files, and nothing else

@pytest.mark.real_data
def test_these_bars_are_quarantined_and_no_others(everything):
    "Of 230,000 real bars: four false closes, and the repeated prices of USFR"
    assert len(everything)==33+8+2+4+4 and sum(len(o[0]) for o in everything.values())>200_000
    out = {(k, o.rule):o.sessions for k,(_,_,found) in everything.items() for o in found if o.action=='quarantine'}
    stale = out.pop(('yahoo_daily/USFR', 'stale'))
    assert out=={('yahoo_daily/USFR', 'outlier'):('2014-12-22',), ('stooq_qetf/ANGL', 'outlier'):('2013-08-02',),
        ('stooq_qetf/FEMS', 'outlier'):('2012-03-13', '2021-06-03')}
    assert len(stale)==513
    for k,(sent,kept,_) in everything.items():
        gone = len(stale)+1 if k.endswith('USFR') else dict(ANGL=1, FEMS=2).get(k.split('/')[1], 0)
        assert len(sent)-len(kept)==gone and np.isin(kept.session, sent.session).all(), k


@pytest.mark.real_data
@pytest.mark.parametrize('span', [('2008-09-15', '2008-12-31'), ('2010-05-06', '2010-05-07'), ('2011-08-04', '2011-08-12'),
    ('2015-08-24', '2015-08-26'), ('2020-02-24', '2020-04-30'), ('2025-04-03', '2025-04-11')], ids=lambda o: o[0])
def test_days_that_were_real_stay(everything, span):
    for k,(sent,kept,_) in everything.items():
        def within(rows): return rows.close[(rows.session>=day(span[0])) & (rows.session<=day(span[1]))]
        if k!='yahoo_daily/USFR': assert within(sent).tolist()==within(kept).tolist(), k


@pytest.mark.real_data
def test_large_moves_that_came_back_but_were_traded_are_named(everything):
    told = {(k.split('/')[1], d) for k,(_,_,found) in everything.items() for o in of(found, 'outlier', 'flag') for d in o.sessions}
    assert {('LQD', '2008-09-29'), ('HYG', '2008-09-17'), ('XLE', '2025-04-09'), ('ANGL', '2013-04-19'), ('ALT', '2019-03-07')}<=told
    funds = {(k, d) for k,d in told if f'yahoo_daily/{k}' in everything and k!='USFR'}
    assert funds=={('LQD', '2008-09-29'), ('HYG', '2008-09-17'), ('XLE', '2025-04-09')}, 'three in 33 funds and 20 years'


@pytest.mark.real_data
def test_the_outlier_rule_has_a_margin(everything):
    "With half the size asked for, no more is quarantined where highs and lows are known"
    from quantetf.data import quality
    with pytest.MonkeyPatch.context() as m:
        m.setattr(quality, 'FAR', 5)
        alone = {k for k,(sent,kept,_) in everything.items() for e in excursions(kept, context(sent)) if e.alone}
    assert not alone, alone
    sent = everything['stooq_qetf/ANGL'][0]
    assert [round(e.times) for e in excursions(sent, context(sent)) if e.alone]==[129]


@pytest.mark.real_data
def test_a_price_that_nobody_traded_at(everything):
    sent,kept,found = everything['yahoo_daily/USFR']
    i,j = np.searchsorted(sent.session, [day('2016-04-06'), day('2016-06-08')])
    run = sent.keep(slice(i, j+1))
    assert len(run)==45 and len(set(run.close))==1 and (run.volume[1:]==0).sum()==41
    inside = kept.keep((kept.session>=run.session[0]) & (kept.session<=run.session[-1]))
    assert inside.session.astype(str).tolist()==['2016-04-06', '2016-04-07', '2016-04-08', '2016-04-25'] and (inside.volume>0).all()
    assert len(of(found, 'no_trades')[0].sessions)==(sent.volume==0).sum()==751


@pytest.mark.real_data
def test_equal_closes_that_were_traded_stay(everything):
    sent,kept,found = everything['yahoo_daily/BIL']
    runs = np.diff(np.flatnonzero(np.concatenate([[True], sent.close[1:]!=sent.close[:-1], [True]])))
    assert runs.max()==19 and not found and len(kept)==len(sent)


@pytest.mark.real_data
def test_zero_prices(everything):
    sent,kept,found = everything['yahoo_daily/SPLG']
    zero, = of(found, 'zero_price')
    assert zero.action=='repair' and zero.sessions==('2009-08-18', '2009-11-18', '2009-12-24') and zero.evidence.startswith('open is')
    assert np.isnan(kept.open).sum()==3 and not np.isnan(kept.close).any() and (sent.open==0).sum()==3, 'the originals are not touched'
    assert of(found, 'missing_sessions')[0].sessions==('2025-10-24',)
    _,kept,found = everything['stooq_qetf/CWI']
    assert [(o.evidence.split()[0], len(o.sessions)) for o in of(found, 'zero_price')]==[('open', 4), ('low', 4)]
    assert not (kept.open<=0).any() and not (kept.low<=0).any()


@pytest.mark.real_data
def test_levels_of_another_day(everything):
    dear = {k:o for k,(_,_,found) in everything.items() for o in of(found, 'not_of_their_day') if 'reverse splits' in o.evidence}
    assert set(dear)==LEVERAGED
    assert '1.23168e+07' in dear['yahoo_daily/SQQQ'].evidence and dear['yahoo_daily/SQQQ'].sessions[0]=='2010-02-11'
    assert '8.826e+10' in dear['traps/UVXY_matdev83'].evidence and '0.02' in dear['traps/UVXY_matdev83'].evidence
    scaled = {k for k,(_,_,found) in everything.items() for o in of(found, 'not_of_their_day') if 'whole numbers' in o.evidence}
    assert scaled=={f'stooq_qetf/{o}' for o in ('AGG', 'ANGL', 'CWI', 'EFA', 'ELV', 'FEMS')} | {'traps/UVXY_matdev83'}


@pytest.mark.real_data
def test_what_does_not_move_like_a_fund(everything):
    odd = {k:o[0].evidence for k,(_,_,found) in everything.items() if (o := of(found, 'not_like_a_fund'))}
    assert set(odd)==LEVERAGED | {'stooq_qetf/ALT', 'stooq_qetf/ELV'}
    assert all('a leveraged fund or a single stock' in odd[k] for k in LEVERAGED | {'stooq_qetf/ALT'})
    assert '13 lone shocks' in odd['stooq_qetf/ELV']


@pytest.mark.real_data
def test_dates_are_the_cure_for_a_ticker_taken_over():
    rows = read('stooq_qetf/ALT.parquet')
    kept,found = clean(rows, 'ALT', context(rows, delisted=day('2010-06-30')))
    gone, = of(found, 'another_company')
    assert gone.action=='quarantine' and str(kept.session[-1])=='2010-06-30' and len(gone.sessions)==(rows.session>day('2010-06-30')).sum()
    assert not of(found, 'ragged_end')
    assert of(found, 'not_like_a_fund'), 'the file is the company from its first row: a date in the middle does not make it a fund'


@pytest.mark.real_data
def test_a_hole_bridged_by_one_return(everything):
    hole, = of(everything['lean/qqq'][2], 'hole')
    assert hole.sessions==('2004-11-30', '2011-03-23')
    assert all(o in hole.evidence for o in ('1588 sessions', '39.13', '55.72', '+42.4%', 'qqq.zip'))
    assert not of(everything['lean/qqq'][2], 'missing_sessions')
    assert {k for k,o in everything.items() if of(o[2], 'hole')}=={'lean/qqq', 'lean/eem', 'stooq_qetf/FEMS'}
    assert '9.98 to 99.7' in of(everything['lean/eem'][2], 'hole')[0].evidence


@pytest.mark.real_data
def test_splits_that_nobody_told_us_of(everything):
    like = {k:of(o[2], 'jump')[0].evidence for k,o in everything.items() if of(o[2], 'jump')}
    assert set(like)==LEVERAGED | {'lean/eem', 'lean/iwm', 'lean/qqq', 'stooq_qetf/ALT'}
    assert of(everything['lean/eem'][2], 'jump')[0].sessions==('2005-06-09', '2008-07-24'), 'what lies across a hole is told there'
    assert like['lean/eem'].count('like a split 3:1')==2 and 'like a split 2:1' in like['lean/iwm']
    assert 'no usual split' in like['yahoo_daily/SQQQ']
    rows = read('lean/iwm.zip')
    assert not of(clean(rows, 'IWM', context(rows, splits=(('2005-06-09', 2.),)))[1], 'jump')


@pytest.mark.real_data
def test_a_bar_that_was_not_final():
    now = vintage('20250903T2008Z_intraday')
    def at(*when): return clean(now, 'SPY', context(now, downloaded=datetime(*when, tzinfo=UTC)))
    kept,found = at(2025, 9, 3, 20, 8)
    assert of(found, 'unfinished', 'quarantine')[0].sessions==('2025-09-03',) and not of(found, 'ragged_end')
    assert str(kept.session[-1])=='2025-09-02'
    kept,found = at(2025, 9, 4, 0, 0)
    assert not of(found, 'unfinished', 'quarantine') and len(kept)==len(now)
    kept,_ = at(2025, 9, 2, 23, 0)
    assert str(kept.session[-1])=='2025-08-29', 'a bar of the day after the download, and the unsettled one before it'


@pytest.mark.real_data
def test_a_volume_that_is_not_rounded_yet(everything):
    files = '20250903T2008Z_intraday', '20250916_full', '20250917_missing_0915', '20250919_pre_exdiv', '20250920_post_exdiv'
    told = {o[:8]:of(clean(rows, 'SPY', context(rows))[1], 'unfinished') for o in files for rows in [vintage(o)]}
    assert {k:bool(v) for k,v in told.items()}=={'20250903':True, '20250916':True, '20250917':True, '20250919':False, '20250920':False}
    assert all(o.action=='flag' for v in told.values() for o in v)
    assert not [k for k,o in everything.items() if of(o[2], 'unfinished')]


@pytest.mark.real_data
def test_a_session_that_came_later():
    rows = vintage('20250917_missing_0915')
    assert of(clean(rows, 'SPY', context(rows))[1], 'missing_sessions')[0].sessions==('2025-09-15',)
    rows = vintage('20250919_pre_exdiv')
    assert not of(clean(rows, 'SPY', context(rows))[1], 'missing_sessions')


@pytest.mark.real_data
def test_one_file_stands_still_while_the_others_move_on():
    folder = real('alphavantage_wire/20260817')
    rows = {o.stem:read(str(o.relative_to(REAL))) for o in sorted(folder.glob('*.csv'))}
    last = max(o.session[-1] for o in rows.values())
    late = {k:of(clean(o, k, Context('XNYS', DAYS, last))[1], 'ragged_end') for k,o in rows.items()}
    assert {k for k,v in late.items() if v}=={'EEM'} and late['EEM'][0].sessions==('2026-08-14',)
    said = late['EEM'][0].evidence
    assert said.startswith('ends 1 session before the dataset does (2026-08-17)') and 'EEM.csv, row 2' in said


@pytest.mark.real_data
def test_findings_point_at_their_rows(everything):
    for k,(sent,_,found) in everything.items():
        for o in found:
            assert sent.file in o.evidence and ', row' in o.evidence and o.id==sent.ticker, (k, o)
            first = int(o.evidence.rsplit(', row', 1)[1].lstrip('s').split(',')[0].rstrip(')'))
            if o.rule!='missing_sessions': assert str(sent.session[sent.row==first][0])==o.sessions[0], (k, o)


@pytest.mark.real_data
def test_all_rules_on_a_clean_fund_are_quick(everything):
    rows = everything['yahoo_daily/SPY'][0].keep(slice(-2300, None))
    ctx,took = context(rows, downloaded=datetime(2026, 6, 1, tzinfo=UTC)),[]
    for _ in range(30):
        start = perf_counter()
        assert clean(rows, 'SPY', ctx)[1]==[]
        took.append(perf_counter()-start)
    assert min(took)<.003, f'{min(took)*1e3:.1f} ms; 5,000 instruments want less than 3 each'


# ---- what must hold for any rows

def walk(seed, n=120, vol=.01, wild=False):
    "A fund that is traded without interruption: each bar opens at the last close, and its range holds all it went through"
    rng = np.random.default_rng(seed)
    steps = (rng.standard_t(2.5, (n, 8)) if wild else rng.standard_normal((n, 8)))*vol/8**.5
    x = np.log(50)+np.cumsum(steps.clip(-.5, .5)).reshape(n, 8)
    opened = np.append(np.log(50), x[:-1,-1])
    high,low = np.maximum(x.max(axis=1), opened),np.minimum(x.min(axis=1), opened)
    prices = {k:np.exp(v) for k,v in dict(open=opened, high=high, low=low, close=x[:,-1]).items()}
    return Rows.make('EWG', 'EWG.csv', np.arange(n)+2, DAYS[7000:7000+n], volume=rng.integers(1, 10**6, n)*100., **prices)


seeds = st.integers(0, 2**31)


@settings(max_examples=60, deadline=None)
@given(seeds, st.floats(.002, .08))
def test_what_was_traded_through_is_never_taken_out(seed, vol):
    for wild in False, True:
        rows = walk(seed, vol=vol, wild=wild)
        kept,found = clean(rows, 'EWG', context(rows))
        assert len(kept)==len(rows) and {o.action for o in found}<={'flag'}


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(3, 110), st.integers(1, 3), st.floats(.4, 3), st.booleans())
def test_a_false_close_is_found_and_nothing_else(seed, at, n, size, up):
    rows,where = walk(seed, vol=.004),slice(at, at+n)
    close = rows.close.copy()
    close[where] *= np.exp(size if up else -size)
    bad = replace(rows, close=close, high=np.fmax(rows.high, close), low=np.fmin(rows.low, close))
    kept,found = clean(bad, 'EWG', context(rows))
    assert [o.sessions for o in found if o.action=='quarantine']==[tuple(rows.session[where].astype(str))]
    assert (kept.close==np.delete(rows.close, where)).all()


def spoilt(rows, rng):
    "Rows with a bit of everything"
    def some(k): return rng.choice(len(rows), k, replace=False)
    cols = {k:getattr(rows, k).copy() for k in NUMBERS}
    cols['close'][some(2)] = 0.
    cols['close'][some(1)] = np.nan
    cols['open'][some(2)] = 0.
    cols['high'][some(2)] *= .8
    cols['volume'][some(20)] = 0.
    days = rows.session.copy()
    days[some(1)] = DAYS[6999]-np.array(1)
    i = np.sort(np.append(np.arange(len(rows)), some(3)))
    out = replace(rows, session=days, **cols).keep(i)
    return replace(out, row=np.arange(len(out))+2)


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_every_row_is_accounted_for(seed):
    rng = np.random.default_rng(seed)
    rows = spoilt(walk(seed), rng)
    ctx = context(walk(seed))
    kept,found = clean(rows, 'EWG', ctx)
    gone = [d for o in found if o.action=='quarantine' or o.rule=='twice' for d in o.sessions]
    assert sorted([*kept.session.astype(str), *gone])==sorted(rows.session.astype(str)), 'kept, merged or quarantined: nothing disappears'
    assert (kept.session[1:]>kept.session[:-1]).all() and (kept.close>0).all() and np.isin(kept.row, rows.row).all()
    assert not (kept.open<=0).any() and not (kept.high<kept.low).any()
    shuffled,again = clean(rows.keep(rng.permutation(len(rows))), 'EWG', ctx)
    assert again==found and shuffled.row.tolist()==kept.row.tolist(), 'the order of the rows says nothing'
    twice,left = clean(kept, 'EWG', ctx)
    assert twice.row.tolist()==kept.row.tolist() and not [o for o in left if o.action!='flag'], 'a second cleaning takes nothing out'


@pytest.mark.parametrize('rows', [walk(1).keep(slice(n)) for n in range(4)], ids=str)
def test_hardly_any_rows(rows):
    ctx = Context('XNYS', DAYS, DAYS[7100], datetime(2024, 1, 1, tzinfo=UTC))
    for o in rows,replace(rows, close=rows.close*0):
        kept,found = clean(o, 'EWG', ctx)
        assert len(kept)==(len(rows) if o is rows else 0) and not [f for f in found if f.rule not in ('ragged_end', 'no_bar')]
        assert coverage(kept, ctx).bars==len(kept)


def test_a_short_series_has_no_usual_move():
    rows = walk(2)
    close = np.where(np.arange(120)==4, rows.close*1.4, rows.close)
    for n,out in (9, []), (40, ['quarantine']):
        some = replace(rows, close=close, high=np.fmax(rows.high, close)).keep(slice(n))
        assert [o.action for o in of(clean(some, 'EWG', context(some))[1], 'outlier')]==out


@pytest.mark.parametrize('delisted, behind', [('2018-01-19', 0),
    ('2018-01-21', 0), ('2018-01-15', 0), ('2018-01-22', 1), ('2018-01-23', 2)])
def test_how_far_behind(delisted, behind):
    "From Friday 2018-01-19, counted in sessions; a Sunday is none"
    rows = walk(6)
    rows = rows.keep(rows.session<=day('2018-01-19'))
    late = of(clean(rows, 'EWG', Context('XNYS', DAYS, DAYS[-1], delisted=day(delisted)))[1], 'ragged_end')
    assert [o.evidence.split()[1] for o in late]==([str(behind)] if behind else [])


def test_numbers_that_a_vendor_does_not_give():
    "Closes alone are enough, and nothing is invented for the rest"
    rows = walk(3)
    bare = Rows.make('EWG', 'EWG.csv', rows.row, rows.session, close=rows.close)
    assert clean(bare, 'EWG', context(rows))[1]==[]
    close = np.where(np.arange(120)==60, rows.close*1.5, rows.close)
    assert [(o.rule, o.action) for o in clean(replace(bare, close=close), 'EWG', context(rows))[1]]==[('outlier', 'quarantine')]
    held = np.where((np.arange(120)>=30) & (np.arange(120)<=60), rows.close[30], rows.close)
    kept,found = clean(replace(bare, close=held), 'EWG', context(rows))
    assert [(o.action, len(o.sessions)) for o in of(found, 'stale')]==[('flag', 30)] and len(kept)==120


def test_a_bar_sent_again_to_the_last_share():
    rows = walk(4)
    i = np.where((np.arange(120)>=30) & (np.arange(120)<=40), 30, np.arange(120))
    frozen = replace(rows, **{k:getattr(rows, k)[i] for k in NUMBERS})
    kept,found = clean(frozen, 'EWG', context(rows))
    assert [(o.rule, o.action, len(o.sessions)) for o in found]==[('stale', 'quarantine', 10)] and len(kept)==110


def test_two_bars_for_one_day():
    rows = walk(5)
    both = rows.keep([0, 1, 1, 2])
    both = replace(both, row=np.arange(4)+2, close=both.close*np.array([1, 1, 1.001, 1]))
    with pytest.raises(DataError, match=r'EWG.csv, rows 3 and 4: two different bars for \d{4}-\d\d-\d\d'): clean(both, 'EWG', context(rows))


@pytest.mark.parametrize('when, last', [
    ('2024-07-03 16:59', '2024-07-02'), ('2024-07-03 21:00', '2024-07-03'), ('2024-07-05 19:00', '2024-07-03'),
    ('2024-07-07 12:00', '2024-07-05'), ('2024-01-02 22:00', '2023-12-29'), ('2024-01-03 01:00', '2024-01-02')])
def test_when_a_bar_is_settled(when, last):
    "Four hours after the close, which is early on 3 July and an hour later, in UTC, in winter"
    assert str(last_settled(datetime.fromisoformat(when).replace(tzinfo=UTC)))==last


# ---- the report

def test_the_report_escapes_whatever_came_from_files():
    nasty = '<img src=x onerror=alert(1)>'
    found = tuple(Finding(nasty, nasty, (nasty,), action, nasty) for action in ('flag', 'repair', 'quarantine', 'measure'))
    eras = tuple(dict(id=nasty, year=2020+i, basis=nasty+str(i), events=1, evidence=nasty) for i in range(2))
    bars = Coverage(nasty, '2020-01-02', '2020-01-03', 2, 2, ((2020, 2, 2),))
    report = CurationReport(found, (nasty,), nasty, eras, (bars,))
    html = report._repr_html_()
    assert '<img' not in html and html.count('&lt;img')>10
    assert json.loads(json.dumps(report.as_dict()))==report.as_dict()


def test_the_report_of_many_is_still_a_page():
    rows = walk(7)
    bars = tuple(coverage(rows, context(rows))._replace(id=f'F{i}') for i in range(3000))
    def finding(i): return Finding('no_trades', f'F{i}', ('2018-01-02',)*(i%7+1), 'flag' if i%3 else 'quarantine', 'none (F.csv, row 2)')
    found = tuple(map(finding, range(3000)))
    report = CurationReport(found, coverage=bars)
    html = report._repr_html_()
    assert len(html)<200_000 and '3,000 instruments, 360,000 bars' in html and 'and 2,975 instruments more' in html
    assert repr(report)=='CurationReport(2000 flag, 1000 quarantine)'
    worst = [o[1]['quarantine'] for o in report.worst()]
    assert worst[:2]==[7, 7] and worst==sorted(worst, reverse=True)


def test_an_empty_report():
    report = CurationReport(())
    assert repr(report)=='CurationReport(nothing found)' and 'nothing found' in report._repr_html_()
    empty = dict(findings=[], eras=[], coverage=[])
    assert report.as_dict()==dict(schema='quantetf.curation/2', adjusted_through='', notes=[], **empty)


def test_each_rule_says_what_it_looks_for():
    assert len({o.__name__ for o in RULES})==len(RULES) and all(o.__doc__ and len(o.__doc__)<90 for o in RULES)
