"""What changed between two datasets: real downloads of different days, and known edits that must come back under their names"""
import json
import os
from copy import copy
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, assume, given
from hypothesis import settings as rules
from hypothesis import strategies as st

from quantetf.calendars import sessions_between
from quantetf.data.revisions import compare
from quantetf.data.schema import Tables, as_table

ROOT = Path(__file__).resolve().parent.parent
REAL = Path(os.environ.get('QUANTETF_REAL_DATA', ROOT.parent/'shared'/'data')).resolve()
PRICES = ['open', 'high', 'low', 'close']
QUICK = dict(deadline=None, phases=[Phase.explicit, Phase.generate])
real_data = pytest.mark.real_data
needs_vintages = pytest.mark.skipif(not (REAL/'yahoo_vintages').is_dir(), reason=f'no real vendor data at {REAL}')
needs_alphavantage = pytest.mark.skipif(not (REAL/'alphavantage_wire').is_dir(), reason=f'no real vendor data at {REAL}')


def tables(frames, basis, **more):
    "Canonical tables of bars by instrument"
    bars = pd.concat([df.assign(id=id) for id,df in frames.items()])
    ids = sorted(frames)
    first = bars.groupby('id').session.min().reindex(ids).to_numpy()
    lives = pd.DataFrame(dict(id=ids, name='', asset_class='', listed=first, delisted=None, delisting_value=np.nan, basis=basis))
    names = pd.DataFrame(dict(ticker=ids, id=ids, start=first, end=None))
    return Tables(**(dict(bars=bars, instruments=lives, symbols=names) | more)).validate()


def kinds(changes): return {(o.kind, o.restates) for o in changes}


def only(changes, kind):
    found = [o for o in changes if o.kind==kind]
    assert len(found)==1, changes.words()
    return found[0]


# ---- one series, downloaded on different days

def yahoo(vintage, ticker='SPY', adjusted=False):
    names = ['session', 'adjusted', 'close', 'high', 'low', 'open', 'volume']
    df = pd.read_csv(REAL/'yahoo_vintages'/vintage/f'{ticker}.csv', skiprows=4, names=names, parse_dates=['session'])
    if adjusted:
        for c in PRICES: df[c] *= df.adjusted/df.close if c!='close' else 1
        df['close'] = df.adjusted
    return tables({ticker:df.drop(columns='adjusted')}, 'total_return' if adjusted else 'split_adjusted')


@real_data
@needs_vintages
@pytest.mark.parametrize('adjusted', [False, True])
def test_a_lost_session_restates_and_a_found_one_does_not(adjusted):
    full,holed = (yahoo(o, adjusted=adjusted) for o in ('20250916_full', '20250917_missing_0915'))
    there = compare(full, holed)
    lost = only(there, 'lost_session')
    assert (lost.sessions, lost.rows, lost.cells, lost.restates) == (('2025-09-15',), 1, 5, True)
    assert only(there, 'new_sessions').sessions==('2025-09-16',)
    back = compare(holed, yahoo('20250919_pre_exdiv', adjusted=adjusted))
    assert only(back, 'filled_session').sessions==('2025-09-15',) and not back.restates
    assert only(back, 'new_sessions').sessions==('2025-09-17', '2025-09-18')
    tiny = [o for o in (*there, *back) if o.kind=='rounding']
    assert all(o.largest<2e-6 for o in tiny) and len(tiny)==(2 if adjusted else 0)
    assert kinds(there) - {('rounding', False)} == {('lost_session', True), ('new_sessions', False)}
    if adjusted: assert 6798<=tiny[0].cells<=4*6863


@real_data
@needs_vintages
def test_a_dividend_explains_every_adjusted_close():
    before,after = '20250919_pre_exdiv','20250920_post_exdiv'
    closes = compare(yahoo(before), yahoo(after))
    assert kinds(closes)=={('new_sessions', False), ('corrected_volume', False)}
    volume = only(closes, 'corrected_volume')
    assert volume.sessions==('2025-09-18',) and '90,345,300 → 90,459,200' in volume.evidence
    adjusted = compare(yahoo(before, adjusted=True), yahoo(after, adjusted=True))
    assert kinds(adjusted)=={('new_sessions', False), ('corrected_volume', False), ('restated_by_dividend', False)}
    paid = only(adjusted, 'restated_by_dividend')
    assert (paid.rows, paid.cells, paid.sessions)==(8216, 4*8216, ('2025-09-19',))
    assert abs(paid.largest*662.26 - 1.831) < .001 # Of the close before the ex-date: what SPY paid
    assert '8,216 closes before 2025-09-19' in paid.evidence and 'dividend' in paid.evidence
    assert adjusted.explained[0]==paid and not adjusted.restates


@real_data
@needs_vintages
def test_a_corrected_close_is_found_beside_a_dividend():
    before,after = yahoo('20250919_pre_exdiv', adjusted=True),yahoo('20250920_post_exdiv', adjusted=True)
    bars = after.bars.copy()
    bars.loc[4000, 'close'] *= 1.00005
    changes = compare(before, Tables(**(dict(after.items()) | dict(bars=bars))))
    assert only(changes, 'restated_by_dividend').rows==8216
    assert (only(changes, 'corrected_price').sessions, changes.restates)==((str(bars.session[4000])[:10],), True)


@real_data
@needs_vintages
@pytest.mark.parametrize('adjusted', [False, True])
def test_an_unfinished_bar_is_a_correction(adjusted):
    changes = compare(yahoo('20250903T2008Z_intraday', adjusted=adjusted), yahoo('20250916_full', adjusted=adjusted))
    found = only(changes, 'corrected_price')
    assert found.sessions==('2025-09-03',) and found.restates and found.rows==1
    assert 'may not have been final' in found.evidence and 'close of 2025-09-03: 643.6 → 643.74 (+0.022 %)' in found.evidence
    assert only(changes, 'corrected_volume').sessions==('2025-09-03',)
    assert len(changes.restating)==1


def alphavantage(day):
    def read(file): return pd.read_csv(file, parse_dates=['timestamp']).rename(columns=dict(timestamp='session'))
    return tables({o.stem:read(o) for o in (REAL/'alphavantage_wire'/day).glob('*.csv')}, 'as_traded')


@real_data
@needs_alphavantage
def test_late_corrections_of_closes_as_traded():
    first,second,third = map(alphavantage, ('20260814', '20260817', '20260821'))
    changes = compare(first, second)
    found = {o.id:o for o in changes if o.kind=='corrected_price'}
    assert set(found)=={'EEM', 'SPY', 'XLP'} and all(o.sessions==('2026-08-14',) and o.restates for o in found.values())
    assert 'close of 2026-08-14: 66.615 → 66.61 ' in found['EEM'].evidence and found['EEM'].cells==2
    assert {o.id for o in changes if o.kind=='new_sessions'}=={'SPY', 'TLT', 'XLP'}
    assert {o.id for o in changes if o.kind=='lost_session'}=={'SPY', 'TLT', 'XLP'} # The window of 100 rows has moved on
    assert {o.id for o in changes if o.kind=='corrected_volume'}=={'EEM', 'SPY', 'TLT', 'XLP'}
    assert not any(o.kind in ('rounding', 'restated_by_dividend') for o in changes)
    later = compare(second, third)
    assert {o.id:o.sessions for o in later if o.kind=='corrected_price'}=={o:('2026-08-17',) for o in ('SPY', 'TLT', 'XLP')}
    stale = [o for o in later if o.id=='EEM' and o.kind=='new_sessions']
    assert stale[0].rows==5 and stale[0].sessions[0]=='2026-08-17'


@real_data
@needs_vintages
def test_dividends_implied_by_two_downloads_are_the_same():
    "Rounding of adjusted closes is in dividends that follow from them; it must not look like a change of history"
    def with_implied(vintage):
        t,adj = yahoo(vintage),yahoo(vintage, adjusted=True).bars.close
        f = adj/t.bars.close
        paid = t.bars.close.shift()*(1 - f.shift()/f)
        paid = pd.DataFrame(dict(id='SPY', session=t.bars.session, kind='dividend', value=paid, pay=None, known_at=t.bars.session))[paid>.1]
        return Tables(**(dict(t.items()) | dict(actions=paid)))
    changes = compare(with_implied('20250917_missing_0915'), with_implied('20250920_post_exdiv'))
    assert kinds(changes)=={(o, False) for o in ('filled_session', 'new_sessions', 'corrected_volume', 'new_action', 'rounding')}
    assert sum(o.kind=='rounding' for o in changes)>10


# ---- known edits of invented tables

DAYS = np.arange('2020-01-01', '2021-01-01', dtype='M8[D]')
DAYS = DAYS[np.is_busday(DAYS)]


@cache
def market(seed, basis, n=3, sessions=60):
    "Invented funds with dividends, a split, facts and rates"
    rng = np.random.default_rng(seed)
    ids = [f'ETF{k}' for k in range(n)]
    frames = {}
    for id in ids:
        close = 50*np.exp(np.cumsum(rng.normal(0, .01, sessions)))
        frames[id] = pd.DataFrame(dict(session=DAYS[:sessions], open=close*.999, high=close*1.01, low=close*.99, close=close,
            volume=rng.integers(1e5, 1e7, sessions).astype(float)))
    acts = [(o, DAYS[t], kind, v) for o in ids for t,kind,v in ((10, 'dividend', .3), (40, 'dividend', .31), (20, 'split', 2.))]
    acts = pd.DataFrame(acts, columns=['id', 'session', 'kind', 'value'])
    facts = pd.DataFrame(dict(id=ids, name='expense_ratio', effective=DAYS[0], known_at=DAYS[5], value='0.0945'))
    rates = pd.DataFrame(dict(session=DAYS[:sessions], annual=.02))
    return tables(frames, basis, actions=acts.assign(pay=None, known_at=acts.session), facts=facts, rates=rates)


def but(t, **frames):
    "Tables with some of them replaced; the others are in canonical form already"
    out = copy(t)
    for k,v in frames.items(): object.__setattr__(out, k, as_table(k, v))
    return out


def at(t, id, row): return np.flatnonzero(t.bars.id==id)[row]


def cell(t, id, row, column, f):
    bars = t.bars.copy()
    k = at(t, id, row)
    bars.loc[k, column] = f(bars.loc[k, column])
    return but(t, bars=bars)


def scaled(t, id, k, prices=1., volumes=1.):
    "The bars of an instrument before session `k`, multiplied"
    bars = t.bars.copy()
    rows = np.flatnonzero(t.bars.id==id)[:k]
    bars.loc[rows, PRICES] *= prices
    bars.loc[rows, 'volume'] *= volumes
    return but(t, bars=bars)


def a_week(t, id, k):
    "Four closes in a row, wrong by one factor"
    for j in range(k, k+4): t = cell(t, id, j, 'close', lambda o: o*.99)
    return t


def times(t, id, rows, k):
    "Some bars of an instrument at `k` times their price"
    bars = t.bars.copy()
    bars.loc[at(t, id, rows), PRICES] *= k
    return but(t, bars=bars)


def closes_only(t, new): return but(t, bars=t.bars.assign(close=new.bars.close))


def begun(t, k):
    "As it is when the data begins at session `k`: listings and tickers begin with it"
    t,first = t.since(DAYS[k]),pd.Timestamp(DAYS[k])
    return but(t, symbols=t.symbols.assign(start=first), instruments=t.instruments.assign(listed=first))


def drop(t, table, rows): return but(t, **{table:getattr(t, table).drop(index=rows)})


def ended(t, sessions): return t.until(DAYS[sessions-1])


def actions_of(t, id, kind): return t.actions.index[(t.actions.id==id) & (t.actions.kind==kind)].tolist()


def put(t, table, which, **values):
    "Other values in some rows of a table"
    df = getattr(t, table)
    return but(t, **{table:df.assign(**{c:df[c].mask(which, v) for c,v in values.items()})})


def set_action(t, id, kind, **values): return put(t, 'actions', t.actions.index==actions_of(t, id, kind)[0], **values)


def set_row(t, table, id, **values): return put(t, table, getattr(t, table).id==id, **values)


def add_action(t, **new): return but(t, actions=pd.concat([t.actions, pd.DataFrame([dict(pay=None) | new])]))


def bare(t): return but(t, actions=None)


def without(t, id):
    def rest(df): return df[df.id!=id]
    return but(t, bars=rest(t.bars), actions=rest(t.actions), instruments=rest(t.instruments), symbols=rest(t.symbols), facts=rest(t.facts))


LEVELS,ADJUSTED = ('as_traded', 'split_adjusted'),('total_return',)
ALL,DIVIDED = LEVELS+ADJUSTED,('split_adjusted', 'total_return')
LAST = pd.Timestamp(DAYS[-1])


def yes(*kinds): return {(o, True) for o in kinds}


def no(*kinds): return {(o, False) for o in kinds}


NEXT = no('new_sessions', 'new_rates')


EDITS = { # name: bases, (old, new) of tables with an id and a row inside, kinds expected, kinds expected the other way round
    'session lost': (ALL, lambda t,id,k: (t, drop(t, 'bars', [at(t, id, k)])), yes('lost_session'), no('filled_session')),
    'last session lost': (ALL, lambda t,id,k: (t, drop(t, 'bars', [at(t, id, -1)])), yes('lost_session'), no('new_sessions')),
    'begun earlier': (ALL, lambda t,id,k: (drop(t, 'bars', [at(t, id, 0)]), t), no('earlier_sessions'), yes('lost_session')),
    'fund gone': (ALL, lambda t,id,k: (t, without(t, id)), yes('lost_instrument'), no('new_instrument')),
    'close': (ALL, lambda t,id,k: (t, cell(t, id, k, 'close', lambda o: o*1.0001)), yes('corrected_price'), yes('corrected_price')),
    'low': (ALL, lambda t,id,k: (t, cell(t, id, k, 'low', lambda o: o-.01)), yes('corrected_price'), yes('corrected_price')),
    'no open': (ALL, lambda t,id,k: (t, cell(t, id, k, 'open', lambda o: np.nan)), yes('lost_price'), no('filled_price')),
    'volume': (ALL, lambda t,id,k: (t, cell(t, id, k, 'volume', lambda o: o+100)), no('corrected_volume'), no('corrected_volume')),
    'rounding': (ADJUSTED, lambda t,id,k: (t, cell(t, id, k, 'close', lambda o: o*1.000002)), no('rounding'), no('rounding')),
    'not rounding': (LEVELS, lambda t,id,k: (t, cell(t, id, k, 'close', lambda o: o*1.000002)), yes('corrected_price'), None),
    'a week': (ALL, lambda t,id,k: (t, a_week(t, id, k)), yes('corrected_price'), yes('corrected_price')),
    'dividend': (ADJUSTED, lambda t,id,k: (ended(t, 50), scaled(t, id, 50, .993)),
        no('restated_by_dividend', 'new_sessions', 'new_rates'), None),
    'old dividend': (ADJUSTED, lambda t,id,k: (t, scaled(t, id, k, .993)), yes('restated_by_dividend'), yes('corrected_price')),
    'dividend without a session': (ADJUSTED, lambda t,id,k: (t, scaled(t, id, 60, .993)), yes('restated_by_dividend'), None),
    'too large a dividend': (ADJUSTED, lambda t,id,k: (ended(t, 50), scaled(t, id, 50, .8)),
        yes('restated_by_dividend') | NEXT, None),
    'too large a late dividend': (ADJUSTED, lambda t,id,k: (t, scaled(t, id, 55, .51)), yes('restated_by_dividend'), None),
    'large payment that is named': (ADJUSTED, lambda t,id,k: (t, add_action(scaled(t, id, 55, .7), id=id, session=DAYS[55], kind='spinoff',
        value=.3*t.bars.close[at(t, id, 54)], known_at=DAYS[55])), no('restated_by_dividend', 'new_action'), None),
    'closes alone': (ADJUSTED, lambda t,id,k: (ended(t, 50), closes_only(t, scaled(t, id, 50, .95))),
        no('restated_by_dividend') | yes('corrected_price') | NEXT, None),
    'two dividends': (ADJUSTED, lambda t,id,k: (ended(t, 58), scaled(scaled(t, id, k, .993), id, 58, .995)),
        yes('restated_by_dividend') | no('restated_by_dividend') | NEXT, None),
    'two late dividends': (ADJUSTED, lambda t,id,k: (ended(t, 58), scaled(scaled(t, id, 55, .9), id, 58, .9)),
        yes('restated_by_dividend') | no('restated_by_dividend') | NEXT, None),
    'no dividend': (LEVELS, lambda t,id,k: (t, scaled(t, id, k, .993)), yes('corrected_price'), yes('corrected_price')),
    'split': (DIVIDED, lambda t,id,k: (ended(bare(t), 50), scaled(bare(t), id, 50, .25, 4)), no('restated_by_split') | NEXT, None),
    'split without a session': (DIVIDED, lambda t,id,k: (bare(t), scaled(bare(t), id, 60, .25, 4)),
        yes('restated_by_split'), yes('restated_by_split')),
    'late split that volumes alone show': (DIVIDED, lambda t,id,k: (bare(t), scaled(bare(t), id, 55, 1/3, 3)),
        yes('restated_by_split'), None),
    'late split that is named': (DIVIDED, lambda t,id,k: (bare(t), add_action(scaled(bare(t), id, 55, 1/3, 3), id=id, session=DAYS[55],
        kind='split', value=3., known_at=DAYS[55])), no('restated_by_split', 'new_action'), None),
    'old split': (DIVIDED, lambda t,id,k: (bare(t), scaled(bare(t), id, k, 10, .1)), yes('restated_by_split'), yes('restated_by_split')),
    'split as traded': (('as_traded',), lambda t,id,k: (t, scaled(t, id, 60, .25, 4)),
        yes('corrected_price', 'corrected_volume'), None),
    'volumes in thousands': (ALL, lambda t,id,k: (t, scaled(t, id, 60, 1, 1000)), yes('corrected_volume'), yes('corrected_volume')),
    'volumes gone': (ALL, lambda t,id,k: (t, scaled(t, id, 60, 1, np.nan)), yes('corrected_volume'), no('corrected_volume')),
    'late volumes': (ALL, lambda t,id,k: (t, cell(cell(t, id, 57, 'volume', lambda o: 2*o), id, 59, 'volume', lambda o: 3*o)),
        no('corrected_volume'), no('corrected_volume')),
    'session of another series': (ALL, lambda t,id,k: (drop(t, 'bars', [at(t, id, k)]), times(t, id, [k], 10)),
        yes('filled_session'), yes('lost_session')),
    'session a little off': (ALL, lambda t,id,k: (drop(t, 'bars', [at(t, id, k)]), times(t, id, [k], 1.2)),
        yes('filled_session'), yes('lost_session')),
    'many sessions found': (ALL, lambda t,id,k: (drop(t, 'bars', at(t, id, np.arange(5, 47, 2))), t),
        yes('filled_session'), yes('lost_session')),
    'sessions found': (ALL, lambda t,id,k: (drop(t, 'bars', at(t, id, np.arange(5, 45, 2))), t), no('filled_session'), yes('lost_session')),
    'another beginning': (ALL, lambda t,id,k: (drop(t, 'bars', at(t, id, np.arange(10))), times(t, id, np.arange(10), 10)),
        yes('earlier_sessions'), yes('lost_session')),
    'longer beginning': (ALL, lambda t,id,k: (drop(t, 'bars', at(t, id, np.arange(30))), t), no('earlier_sessions'), yes('lost_session')),
    'dividend changed': (LEVELS, lambda t,id,k: (t, set_action(t, id, 'dividend', value=.302)), yes('changed_action'), None),
    'dividend rounded': (LEVELS, lambda t,id,k: (t, set_action(t, id, 'dividend', value=.30001)), no('rounding'), no('rounding')),
    'split known earlier': (LEVELS, lambda t,id,k: (t, set_action(t, id, 'split', known_at=pd.Timestamp(DAYS[3]))),
        yes('changed_action'), yes('changed_action')),
    'paid': (LEVELS, lambda t,id,k: (t, set_action(t, id, 'dividend', pay=LAST)), no('changed_action'), yes('changed_action')),
    'dividend gone': (LEVELS, lambda t,id,k: (t, drop(t, 'actions', actions_of(t, id, 'dividend')[:1])),
        yes('lost_action'), yes('new_action')),
    'announced': (LEVELS, lambda t,id,k: (t, add_action(t, id=id, session=DAYS[70], kind='dividend', value=.3, known_at=DAYS[58])),
        no('new_action'), no('lost_action')),
    'tardy': (LEVELS, lambda t,id,k: (t, add_action(t, id=id, session=DAYS[56], kind='spinoff', value=.3, known_at=DAYS[56])),
        no('new_action'), yes('lost_action')),
    'basis': (ALL, lambda t,id,k: (t, set_row(t, 'instruments', id, basis='mixed')), yes('changed_basis'), yes('changed_basis')),
    'basis measured': (ALL, lambda t,id,k: (set_row(t, 'instruments', id, basis='unknown'), t), no('changed_basis'), yes('changed_basis')),
    'closed': (LEVELS, lambda t,id,k: (t, set_row(t, 'instruments', id, delisted=LAST)), no('delisted'), yes('changed_instrument')),
    'closed before its bars': (LEVELS, lambda t,id,k: (t, set_row(t, 'instruments', id, delisted=pd.Timestamp(DAYS[k]),
        delisting_value=0.)), yes('delisted'), yes('changed_instrument')),
    'closed earlier': (LEVELS, lambda t,id,k: tuple(set_row(t, 'instruments', id, delisted=o) for o in (LAST, pd.Timestamp(DAYS[k]))),
        yes('changed_instrument'), yes('changed_instrument')),
    'named': (LEVELS, lambda t,id,k: (t, set_row(t, 'instruments', id, name='A fund')), no('changed_instrument'), no('changed_instrument')),
    'ticker ended later': (LEVELS, lambda t,id,k: (t, set_row(t, 'symbols', id, end=LAST)), no('changed_symbol'), no('changed_symbol')),
    'ticker ended before': (LEVELS, lambda t,id,k: (t, set_row(t, 'symbols', id, end=pd.Timestamp(DAYS[k]))),
        yes('changed_symbol'), no('changed_symbol')),
    'no ticker': (LEVELS, lambda t,id,k: (t, but(t, symbols=t.symbols[t.symbols.id!=id])), yes('lost_symbol'), no('new_symbol')),
    'fact': (LEVELS, lambda t,id,k: (t, set_row(t, 'facts', id, value='0.09')), yes('changed_fact'), yes('changed_fact')),
    'fact dated anew': (LEVELS, lambda t,id,k: (t, set_row(t, 'facts', id, known_at=LAST)),
        yes('changed_fact'), no('lost_fact', 'new_fact')),
    'fact replaced later': (LEVELS, lambda t,id,k: (t, set_row(t, 'facts', id, known_at=pd.Timestamp(DAYS[k+6]), value='0.01')),
        yes('changed_fact'), yes('lost_fact') | no('new_fact')),
    'fact dated by the download': (LEVELS, lambda t,id,k:
        tuple(set_row(t, 'facts', id, known_at=pd.Timestamp(o)) for o in (DAYS[59], LAST)),
        no('changed_fact'), no('lost_fact', 'new_fact')),
    'ticker begins with the bars': (LEVELS, lambda t,id,k: (t.since(DAYS[k]), begun(t, k)),
        no('changed_symbol', 'changed_instrument'), None),
    'ticker begins later': (LEVELS, lambda t,id,k: (t, set_row(t, 'symbols', id, start=pd.Timestamp(DAYS[k]))),
        yes('changed_symbol'), no('changed_symbol')),
    'no fact': (LEVELS, lambda t,id,k: (t, but(t, facts=t.facts[t.facts.id!=id])), yes('lost_fact'), no('new_fact')),
    'rate': (LEVELS, lambda t,id,k: (t, put(t, 'rates', t.rates.index==k, annual=.03)), yes('changed_rate'), yes('changed_rate')),
    'no rate': (LEVELS, lambda t,id,k: (t, drop(t, 'rates', [k])), yes('lost_rate'), no('filled_rate'))}
CASES = [(name, basis) for name,(bases,*_) in EDITS.items() for basis in bases]


@pytest.mark.parametrize('name,basis', CASES)
@rules(max_examples=5, **QUICK)
@given(seed=st.integers(0, 9), which=st.integers(0, 2), row=st.integers(4, 50))
def test_an_edit_comes_back_under_its_name(name, basis, seed, which, row):
    _,edit,there,back = EDITS[name]
    id = f'ETF{which}'
    old,new = edit(market(seed, basis), id, row)
    changes = compare(old, new)
    assert kinds(changes)==there, changes.words()
    everywhere = 'new_sessions', 'new_rates', *(('changed_symbol', 'changed_instrument') if name=='ticker begins with the bars' else ())
    assert {o.id for o in changes if o.kind not in everywhere} <= {id, ''}
    assert changes.restates==any(r for _,r in there)
    if back is not None: assert kinds(compare(new, old))==back, compare(new, old).words()


@rules(max_examples=15, **QUICK)
@given(seed=st.integers(0, 9), basis=st.sampled_from(LEVELS+ADJUSTED), end=st.integers(45, 60))
def test_nothing_is_found_in_equal_tables_and_news_alone_in_longer_ones(seed, basis, end):
    t = market(seed, basis)
    same = compare(t, market(seed, basis))
    assert len(same)==0 and not same.restates and repr(same)=='no difference' and same.words()==['no difference']
    longer = compare(ended(t, end), t)
    assert not longer.restates and len(longer)==len(longer.news) and longer.words()[0].startswith('only news') or end==60


@rules(max_examples=40, **QUICK)
@given(seed=st.integers(0, 99), cuts=st.lists(st.sampled_from([2, 4, 6, 8, 11]), min_size=1, max_size=3, unique=True),
    cents=st.booleans(), wrong=st.integers(0, 59))
def test_a_staircase_of_dividends_with_rounding_and_a_wrong_close(seed, cuts, cents, wrong):
    "Every dividend is found at its ex-date, and the wrong close beside them"
    assume(wrong+1 not in [5*k for k in cuts]) # Whether such a close is before or after the ex-date nobody could tell
    rng = np.random.default_rng(seed)
    t = market(seed, 'total_return')
    new = t
    for k in cuts: new = scaled(new, 'ETF1', 5*k, 1-rng.uniform(.004, .02))
    noise = 1 + (0 if cents else 1e-6)*rng.uniform(-1, 1, (len(t.bars), 4))
    new = cell(but(new, bars=new.bars.assign(**new.bars[PRICES]*noise)), 'ETF1', wrong, 'close', lambda o: o*1.003)
    if cents: t,new = (but(o, bars=o.bars.assign(**o.bars[PRICES].round(2))) for o in (t, new))
    changes = compare(t, new)
    paid = {o.sessions[0] for o in changes if o.kind=='restated_by_dividend'}
    assert paid=={str(DAYS[5*k]) for k in cuts}, changes.words()
    assert only(changes, 'corrected_price').sessions==(str(DAYS[wrong]),), changes.words()


def test_dividends_are_divided_with_the_closes():
    "Where closes are divided by later splits, dividends are too: both follow from one new split"
    t = but(market(1, 'split_adjusted'), actions=market(1, 'split_adjusted').actions.query("kind=='dividend'"))
    old,new = ended(t, 59),scaled(t, 'ETF1', 59, .5, 2)
    new = but(new, actions=new.actions.assign(value=new.actions.value.where(new.actions.id!='ETF1', new.actions.value/2)))
    changes = compare(old, new)
    assert kinds(changes)==no('restated_by_split') | NEXT and len(changes.explained)==3
    assert kinds(compare(old, scaled(t, 'ETF1', 59, .5, 2)))==no('restated_by_split') | NEXT
    assert ('changed_action', True) in kinds(compare(old, but(old, actions=new.actions)))


def test_a_split_is_named_by_the_actions_where_volumes_do_not_show_it():
    old = market(3, 'split_adjusted')
    old = but(old, actions=None)
    halved = scaled(old, 'ETF2', 60, .5)
    assert kinds(compare(old, halved))=={('corrected_price', True)}
    split = add_action(halved, id='ETF2', session=DAYS[60], kind='split', value=2., known_at=DAYS[58])
    assert kinds(compare(old, split))=={('restated_by_split', False), ('new_action', False)}


def test_words_and_plain_data_stay_short():
    t = market(5, 'as_traded', n=40)
    changes = compare(ended(t, 59), cell(t, 'ETF7', 12, 'close', lambda o: o*2))
    assert changes.words()[0]=='1 change restates history and needs your word'
    assert changes.words()[1]=='price changed without an explanation (needs your word): 1 instrument, 1 row'
    assert len(changes.words(most=3))<12 and 'ETF7' in changes._repr_html_()
    plain = changes.as_dict(most=10)
    assert plain['restates'] and sum(o['changes'] for o in plain['counts'])==len(changes)>len(plain['changes'])
    assert json.loads(json.dumps(plain, allow_nan=False))==plain


def test_two_vendors_compared_stay_readable():
    "Hundreds of small steps, as between the closes of two sources, are counted and not recited"
    rng = np.random.default_rng(0)
    days = sessions_between('2019-01-02', '2021-12-31').astype('datetime64[us]')
    close = 100*np.exp(np.cumsum(rng.normal(0, .01, len(days))))
    steps = np.repeat(np.cumprod(1 + rng.normal(0, 1e-3, len(days)//8 + 1)), 8)[:len(days)]
    def of(c):
        bars = pd.DataFrame(dict(id='AAA', session=days, open=np.nan, high=np.nan, low=np.nan, close=c, volume=np.nan))
        one = pd.DataFrame(dict(id=['AAA'], name='', asset_class='', listed=days[:1], delisted=pd.NaT, delisting_value=np.nan,
            basis='split_adjusted'))
        return Tables(bars=bars, instruments=one)
    lines = compare(of(close), of(close*steps)).words()
    assert any('more like this' in o for o in lines) and max(map(len, lines))<800


@rules(max_examples=10, **QUICK)
@given(seed=st.integers(0, 9), k=st.integers(12, 50))
def test_data_cut_at_their_beginning_equal_the_old_cut_there(seed, k):
    "What the new data say of their first session, the old said earlier: a basis that was measured and a ticker"
    def basis(t, *rows): return but(t, facts=pd.DataFrame([dict(id='ETF1', name='price_basis', effective=DAYS[j], known_at=DAYS[j], value=v)
        for j,v in rows]))
    t = market(seed, 'as_traded')
    old = basis(t, (0, 'mixed'), (10, 'as_traded'), (55, 'mixed')).since(DAYS[k])
    changes = compare(old, basis(begun(t, k), (k, 'as_traded'), (55, 'mixed')))
    assert not changes.restates, changes.words()
    assert compare(old, basis(begun(t, k), (k, 'mixed'), (55, 'mixed'))).restates
