"""The look-ahead audit: hundreds of random peekers are caught, honest strategies are left alone."""
import json
import threading
import zlib
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from quantetf.backtest.audit import BLIND, SOURCES, Exam, Rebuilt, audit, chance, fresh, poisoned, sampled
from quantetf.core import ConfigError, NotASession, ParameterError, find_settings
from quantetf.costs import CostTerms, Proportional
from quantetf.data.demo import demo_tables
from quantetf.data.schema import Tables
from quantetf.data.snapshot import Snapshot, make_record
from quantetf.portfolio import TopNEqual
from quantetf.strategy import load_strategy, make_strategy
from quantetf.universe import Universe

ROOT = Path(__file__).resolve().parent.parent
IDS = ['CLN1', 'CMD1', 'CRP1', 'EMG1', 'GLD1', 'GVL1', 'HYB1', 'REA1', 'TEC1', 'TIP1', 'USL1', 'USS1']


def snapshot(tables, name='small'): return Snapshot(make_record(tables, name, synthetic=True), name, lambda: tables)


@cache
def market():
    "Twelve funds over four years: a listing, a renaming, lost closes, dividends; then five more years with a split, a closure, fee cuts"
    t = demo_tables()
    days = t.bars.session>='2010-01-01'
    t = replace(t, bars=t.bars[days & t.bars.id.isin(IDS)], instruments=t.instruments[t.instruments.id.isin(IDS)],
        actions=t.actions[t.actions.id.isin(IDS) & (t.actions.session>='2010-01-01')], symbols=t.symbols[t.symbols.id.isin(IDS)],
        facts=t.facts[t.facts.id.isin(IDS)])
    return t.until('2013-12-31')


@cache
def shared(): return Rebuilt(snapshot(market()), keep=True)


PLAIN = dict(universe=dict(kind='static', tickers=IDS, filters=[dict(kind='min_age', sessions=130)]),
    features=dict(mom=dict(kind='momentum', lookback=126, skip=10), vol=dict(kind='volatility', window=42)),
    alpha=dict(kind='rank', feature='mom'), portfolio=dict(kind='top_n_equal', n=3), schedule=dict(kind='monthly'))


@cache
def plain(): return make_strategy(PLAIN, 'small') # Reading its config takes as long as an audit


def strategy(**changes): return make_strategy(PLAIN | changes, 'small') if changes else plain()


# --- Ways to look ahead. Each is a function of a view to (R, N) numbers that nobody could have known.

def history(view, name):
    "All sessions of a field, by going around the view"
    p = view._panel
    return p.view(p.sessions).lag(name), np.searchsorted(p.sessions, view.sessions)


def known_today(view, name):
    "A fact as it stands at the end of the data, as a number"
    p = view._panel
    values = p.view(p.sessions[-1]).facts(name, object)[0]
    def number(o):
        try: return 100*float(o)
        except (TypeError, ValueError): return zlib.crc32(str(o).encode())/2**32
    return np.tile([0. if o is None else number(o) for o in values], (len(view), 1))


FIELDS = 'open', 'high', 'low', 'close', 'volume', 'cash', 'split', 'tr', 'ret'
PRICES = 'open', 'high', 'low', 'close', 'tr', 'volume'


def shifted(rng):
    name,k = rng.choice(FIELDS),int(rng.integers(1, 22))
    def leak(view):
        x,rows = history(view, name)
        return x[np.minimum(rows+k, len(x)-1)]
    return f'{name} {k} sessions ahead', leak


def best_to_come(rng):
    name,k,best = rng.choice(PRICES),int(rng.integers(2, 64)),rng.choice([np.nanmax, np.nanmin, np.nanmean])
    def leak(view):
        x,rows = history(view, name)
        return np.stack([best(x[r:r+k+1], axis=0) for r in rows])/view.lag(name)
    return f'{best.__name__} of {name} over {k} sessions', leak


def normalised(rng):
    name,how = rng.choice(PRICES),rng.choice(['z', 'max', 'last', 'rank'])
    def leak(view):
        x,rows = history(view, name)
        if how=='z': return (x[rows] - np.nanmean(x, axis=0))/np.nanstd(x, axis=0)
        if how=='max': return x[rows]/np.nanmax(x, axis=0)
        if how=='last': return x[rows]/pd.DataFrame(x).ffill().to_numpy()[-1]
        return np.stack([np.nanmean(x<=x[r], axis=0) for r in rows])
    return f'{name} by its whole history ({how})', leak


def back_adjusted(rng):
    splits,cash = [(1, 0), (0, 1), (1, 1)][rng.integers(3)]
    def leak(view):
        close,rows = history(view, 'close')
        step = history(view, 'split')[0]**-float(splits)
        if cash: step = step*np.clip(1 - np.nan_to_num(history(view, 'cash')[0]/pd.DataFrame(close).ffill().to_numpy()), .01, 1)
        later = np.cumprod(step[::-1], axis=0)[::-1]
        return (close*np.vstack([later[1:], np.ones((1, close.shape[1]))]))[rows]
    return f'close adjusted by later {"splits"*splits}{" and "*(splits*cash)}{"dividends"*cash}', leak


def todays_facts(rng):
    name = rng.choice(['expense_ratio', 'asset_class', 'ticker', 'dividend', 'split_ratio'])
    return f"today's {name}", lambda view: known_today(view, name)


def static_facts(rng):
    def leak(view): return 100*view.facts('expense_ratio', float, assume_static=True)
    return 'a fee before it was known', leak


def survivors(rng):
    def leak(view): return np.tile(1. - view._panel.view(view._panel.sessions[-1]).closed()[0], (len(view), 1))
    return 'who survives', leak


def listed_long(rng):
    def leak(view): return np.tile(view._panel.view(view._panel.sessions[-1]).age()[0]*1., (len(view), 1))
    return 'closes over the whole history', leak


def rates(rng):
    k = int(rng.integers(1, 64))
    def leak(view):
        rate,rows = np.asarray(view._panel.rate),np.searchsorted(view._panel.sessions, view.sessions)
        return rate[np.minimum(rows+k, len(rate)-1)][:,None]*np.linspace(-1, 1, len(view.ids))*view.lag('tr')
    return f'the rate {k} sessions ahead', leak


def centred(rng):
    name,k,f = rng.choice(PRICES),int(rng.integers(1, 21)),rng.choice([np.nanmean, np.nanmedian, np.nanstd])
    def leak(view):
        x,rows = history(view, name)
        return np.stack([f(x[max(r-k, 0):r+k+1], axis=0) for r in rows])/view.lag(name)
    return f'{f.__name__} of {name} over {2*k+1} sessions around', leak


def over_the_dates(rng):
    name,how = rng.choice(PRICES),rng.choice(['mean', 'max', 'next'])
    def leak(view):
        x = view.lag(name)
        if how=='next': return np.vstack([x[1:], x[-1:]])
        return x/(np.nanmean if how=='mean' else np.nanmax)(x, axis=0)
    return f'{name} by the other dates of the batch ({how})', leak


def cached(rng):
    where,row,key,memo = rng.choice(['object', 'class']),int(rng.integers(-1, 1)),rng.choice(['id', 'month']),{}
    def leak(view, memo=memo):
        x,out = view.lag('tr')/view.lag('tr', 21),np.empty((len(view), len(view.ids)))
        for i,day in enumerate(view.sessions):
            for j,id in enumerate(view.ids):
                k = str(id) if key=='id' else (str(id), str(day)[5:7])
                out[i,j] = memo.setdefault(k, x[row if key=='id' else i,j])
        return out
    leak.by_object = where=='object'
    return f'a cache by {key} in the {where}', leak


WAYS = (shifted, best_to_come, normalised, back_adjusted, todays_facts, static_facts, survivors, listed_long, rates, centred,
    over_the_dates, cached)


# --- Where a strategy can look ahead

class Leaks:
    "A component with a leak; some leaks keep a memory in the object"
    def __init__(self, part, leak, weight=1., columns=None):
        self.part,self.leak,self.weight,self.columns,self.memo = part,leak,weight,columns,{}
    def __getattr__(self, k):
        if k.startswith('__') or k=='part': raise AttributeError(k)
        return getattr(self.part, k)
    def extra(self, view):
        x = self.leak(view, self.memo) if getattr(self.leak, 'by_object', False) else self.leak(view)
        if self.columns is not None: x = np.where(np.isin(np.arange(x.shape[1]), self.columns), x, 0.)
        return self.weight*x
    def __deepcopy__(self, memo): return type(self)(self.part, self.leak, self.weight, self.columns)


class LeakyFeature(Leaks):
    def compute(self, view, universe=None): return self.part.compute(view, universe) + self.extra(view)


class LeakyAlpha(Leaks):
    def score(self, view, universe, features): return self.part.score(view, universe, features) + self.extra(view)


class LeakyUniverse(Leaks):
    def members(self, view):
        u,x = self.part.members(view),self.extra(view)
        mask = u.mask & ~(x<np.nanmedian(x, axis=1, keepdims=True))
        return Universe(mask, np.where(mask, '', 'left out'), view)


class LeakyPortfolio(Leaks):
    def want(self, signals): return self.part.want(replace(signals, scores=signals.scores + self.extra(signals.view)))
    def construct(self, signals, weights_now=None): return self.want(signals)


class LeakyCosts(Leaks):
    def terms(self, view): return CostTerms(np.abs(np.nan_to_num(self.extra(view)))*1e-4)


@dataclass(frozen=True)
class Cautious(TopNEqual):
    "Asks for the risk of what it would hold, and holds less where that is high"
    needs_risk:bool = True
    def want(self, signals):
        t = super().want(signals)
        for i,w in enumerate(t.weights):
            held = np.flatnonzero(np.nan_to_num(w))
            if not len(held): continue
            vol = signals.risk_model.estimate(signals.view[i], signals.view.ids[held]).vol(w[held])
            t.weights[i] = w*min(1, .15/vol)
        return replace(t, cash=1-t.weights.sum(axis=1))


class LeakyRisk(Leaks):
    def estimate(self, view, columns):
        r = self.part.estimate(view, columns)
        return replace(r, cov_annual=r.cov_annual*(1 + abs(np.nanmean(self.extra(view)))))


PLACES = 'feature', 'feature', 'alpha', 'universe', 'portfolio', 'costs', 'risk'


def leaking(place, leak, weight=1., columns=None):
    s,more = strategy(),(leak, weight, columns)
    if place=='feature': return replace(s, features=s.features | dict(mom=LeakyFeature(s.features['mom'], *more)))
    if place=='alpha': return replace(s, alpha=LeakyAlpha(s.alpha, *more))
    if place=='universe': return replace(s, universe=LeakyUniverse(s.universe, *more))
    if place=='portfolio': return replace(s, portfolio=LeakyPortfolio(s.portfolio, *more))
    if place=='costs': return replace(s, costs=LeakyCosts(s.costs, *more))
    from quantetf.risk import Sample
    return replace(s, portfolio=Cautious(3), risk=LeakyRisk(Sample(60, .5), *more))


def random_peeker(seed):
    "(what it does, where, a strategy)"
    rng = np.random.default_rng(seed)
    what,leak = WAYS[seed%len(WAYS)](rng)
    place = str(rng.choice(PLACES))
    if leak.__dict__.get('by_object') is not None: place = 'feature' # A memory is a matter of components that compute
    if WAYS[seed%len(WAYS)] is over_the_dates and place=='risk': place = 'alpha' # Risk is always estimated for one date
    columns = None
    if place in ('feature', 'alpha') and rng.random()<.3: columns = rng.permutation(len(IDS))[:6]
    if rng.random()<.3 and not hasattr(leak, 'by_object'):
        also,second = WAYS[rng.integers(len(WAYS)-1)](rng)
        first,share = leak,rng.uniform(.1, .9)
        what,leak = f'{what}, and {also}',lambda view: share*first(view) + (1-share)*second(view)
    return what,place,leaking(place, leak, float(rng.uniform(.3, 3)), columns)


PEEKERS = 144


def test_peekers_are_caught():
    missed,ways,first = [],Counter(),Counter()
    for seed in range(PEEKERS):
        what,place,s = random_peeker(seed)
        a = audit(s, shared(), sample=8, quick=True)
        ways[WAYS[seed%len(WAYS)].__name__,place] += 1
        if a.status!='FAIL': missed.append((seed, place, what))
        elif a.first.step in (place, 'portfolio'): first[a.first.step] += 1
    assert not missed
    assert sum(first.values())==PEEKERS # The place of the leak is named, or where it first shows
    assert set(first)==set(PLACES) and len(ways)>40


@pytest.mark.parametrize('place', sorted(set(PLACES)))
def test_the_same_strategies_without_the_leak_are_not(place):
    s = leaking(place, lambda view: np.zeros((len(view), len(view.ids))))
    assert audit(s, shared(), sample=6, quick=True).status=='PASS'


# --- What each question is for

def found_by(s, dates=None, data=None, **kwargs):
    "The questions that a strategy fails"
    return {o.check for o in audit(s, data or shared(), dates, quick=True, **{'sample':6} | kwargs).differences}


def feature(compute):
    class Part:
        def compute(self, view, universe=None): return compute(view)
    s = strategy()
    return replace(s, features=s.features | dict(mom=Part()))


def half_year(view): return view.lag('tr')/view.lag('tr', 126) - 1


class TestQuestions:
    def test_nothing_is_wrong_with_an_honest_one(self): assert found_by(feature(half_year))==set()

    def test_who_uses_the_other_dates_is_seen_when_asked_alone(self):
        a = audit(feature(lambda view: half_year(view) - np.nanmean(half_year(view), axis=0)), shared(), sample=6, quick=True)
        assert {o.source for o in a.differences if o.check=='alone'}=={'without the other dates'}
        assert len({o.session for o in a.differences if o.check=='alone'})==a.count>len(a.dates)==6 # All dates, not just the drawn ones

    @pytest.mark.parametrize('shows', [lambda n: True, lambda n: n==1, lambda n: n>1], ids=['always', 'for one date', 'for many'])
    def test_only_again_sees_who_counts_its_questions(self, shows):
        class Counts:
            def __init__(self): self.n = 0
            def compute(self, view, universe=None):
                self.n += 1
                return half_year(view) + (self.n if shows(len(view)) else 1)
        s = strategy()
        assert found_by(replace(s, features=s.features | dict(mom=Counts())))=={'again'}

    def test_dice_are_not_an_answer(self):
        dice = np.random.default_rng(0)
        assert 'again' in found_by(feature(lambda view: half_year(view) + dice.standard_normal()))

    def test_only_cut_sees_who_counts_the_sessions_of_the_data(self):
        assert found_by(feature(lambda view: half_year(view)/len(view._panel.sessions)))=={'cut'}

    def test_only_poison_sees_corrections_that_never_came(self):
        data = Rebuilt(snapshot(replace(market(), facts=market().facts[market().facts.known_at<='2010-12-31'])))
        assert found_by(feature(lambda view: half_year(view) + known_today(view, 'expense_ratio')), data=data)=={'poisoned'}

    def test_only_memory_sees_what_all_copies_share(self):
        memo = {}
        def compute(view):
            now = half_year(view)[-1]
            return np.tile([memo.setdefault(str(id), x) for id,x in zip(view.ids, now, strict=True)], (len(view), 1))
        assert found_by(feature(compute))=={'memory'}

    def test_memory_by_column_is_one_too(self):
        memo = []
        def compute(view):
            if not memo: memo.extend(half_year(view)[-1])
            return np.tile(memo, (len(view), 1))
        assert found_by(feature(compute))=={'memory'}

    def test_a_schedule_that_knows_the_end_of_the_data(self):
        class Backwards:
            label = 'every twentieth session, from one that depends on how many there are'
            def dates(self, start, end, exchange='XNYS'):
                days = shared().sessions
                days = days[(days>=start) & (days<=end)]
                return days[len(days)%7::20]
        first = audit(replace(strategy(), schedule=Backwards()), shared(), sample=6, quick=True).first
        assert (first.check, first.step)==('cut', 'schedule')

    @pytest.mark.parametrize('source,leak', [
        ('prices', lambda view: history(view, 'volume')[0][-1]*np.ones((len(view), 1))),
        ('actions', lambda view: history(view, 'split')[0].prod(axis=0)*np.ones((len(view), 1))),
        ('facts', lambda view: known_today(view, 'asset_class')),
        ('rates', lambda view: np.nanmean(view._panel.rate)*np.ones((len(view), len(view.ids)))),
        ('symbols', lambda view: known_today(view, 'ticker'))])
    def test_the_guilty_source_is_named(self, source, leak):
        a = audit(feature(lambda view: half_year(view) + leak(view)), shared(), sample=6, quick=True)
        said = {o.source for o in a.differences if o.check=='poisoned'}
        assert said=={f'other {source} after the date'}

    def test_the_first_step_instrument_and_date_are_named(self):
        leak = lambda view: (view.ids=='GLD1')*shifted(np.random.default_rng(1))[1](view)
        def late(view): return np.where((view.sessions>=np.datetime64('2012-06-01'))[:,None], leak(view), 0.)
        a = audit(leaking('alpha', late), shared(), sample=16, quick=True)
        day = str(min(o for o in a.dates if o>=np.datetime64('2012-06-01')))
        assert (a.first.step, a.first.id, a.first.session)==('alpha', 'GLD1', day)
        assert a.first.expected!=a.first.got and 'alpha of GLD1' in str(a.first) and day in str(a.first)

    def test_an_error_on_the_way_is_a_difference(self):
        def compute(view):
            if view._panel.sessions[-1]<shared().sessions[-1]: raise KeyError('the last session')
            return half_year(view)
        first = audit(feature(compute), shared(), sample=6, quick=True).first
        assert (first.check, first.step, first.name)==('cut', 'feature', 'mom') and 'KeyError' in first.got


# --- Honest strategies

@cache
def demo(): return Rebuilt(snapshot(demo_tables().until('2012-12-31'), 'demo'), keep=True)


@pytest.mark.parametrize('name', sorted(o.stem for o in (ROOT/'configs'/'strategies').glob('*.yaml')))
def test_strategies_of_the_project_pass(name):
    s = load_strategy(name, find_settings(ROOT, environ={}))
    data = demo()
    if name!='demo_momentum': # Written for real funds: the same rules for as many invented ones
        known = data.tables.instruments.id[:len(s.universe.tickers)].tolist()
        s = replace(s, universe=replace(s.universe, tickers=known))
    a = audit(s, data)
    assert a.status=='PASS' and len(a.dates)==12 and a.warmup[0].needed==253


def random_strategy(seed):
    "Built-in parts in a random combination"
    rng = np.random.default_rng(seed)
    lookback,window,n = int(rng.integers(30, 200)),int(rng.integers(5, 80)),int(rng.integers(1, 5))
    limits = dict(cash_buffer=round(float(rng.uniform(0, .05)), 3), max_weight=round(float(rng.uniform(1/n, 1)), 3) if n>1 else 1.)
    if rng.random()<.3: limits['max_turnover'] = round(float(rng.uniform(.05, .5)), 3)
    names = rng.permutation([*IDS[:6], 'HYD1', *IDS[7:]])[:int(rng.integers(8, 13))].tolist() # HYB1 by the ticker it got later
    filters = [dict(kind='min_age', sessions=int(rng.integers(1, 260)), max_stale=int(rng.integers(0, 6)))]*int(rng.random()<.7)
    portfolio = dict(kind=str(rng.choice(['top_n_equal', 'inverse_volatility'])), n=n, constraints=limits)
    return strategy(universe=dict(kind='static', tickers=names, filters=filters), portfolio=portfolio,
        features=dict(mom=dict(kind='momentum', lookback=lookback, skip=int(rng.integers(0, 21)), max_stale=int(rng.integers(0, 6))),
            vol=dict(kind='volatility', window=window, min_obs=round(float(rng.uniform(.5, 1)), 2))),
        alpha=dict(kind='rank', feature=str(rng.choice(['mom', 'vol'])), ascending=bool(rng.random()<.5)),
        schedule=dict(kind=str(rng.choice(['weekly', 'monthly', 'quarterly'])), day=str(rng.choice(['first', 'last']))))


def test_a_later_ticker_in_a_nested_list_is_no_leak():
    "HYB1 is called HYD1 from 2011 on, and the list is inside a union"
    lists = [dict(kind='static', tickers=['HYD1', *IDS[:4]]), dict(kind='static', tickers=IDS[4:6])]
    nested = strategy(universe=dict(kind='union', of=lists, filters=[dict(kind='min_age', sessions=130)]))
    found = audit(nested, shared(), sample=3, quick=True)
    assert found.status=='PASS', found.headline


@pytest.mark.parametrize('part', range(4))
def test_honest_strategies_pass(part):
    data = Rebuilt(snapshot(market()), seed=part, keep=True)
    for seed in range(part, 16, 4):
        s = random_strategy(seed)
        a = audit(s, data, sample=4, seed=seed)
        assert a.status=='PASS', (seed, str(a))
        assert a.warmup[-1].needed<=max(o for o in (s.features['mom'].lookback, s.features['vol'].window,
            *(f.sessions for f in s.universe.filters))) + 6


def test_a_strategy_with_a_turnover_limit_is_asked_with_its_book():
    s = strategy(portfolio=dict(kind='top_n_equal', n=3, constraints=dict(max_turnover=.1)))
    exam = Exam(s, shared(), sample=6)
    assert len(exam.books)==len(exam.due) and all(not exam.books[d].shares.any() for d in exam.due[:1])
    free = Exam(strategy(), shared(), sample=6)
    assert not np.array_equal(exam.said['portfolio', 'weights'], free.said['portfolio', 'weights']) # The limit binds
    assert np.array_equal(exam.said['portfolio', 'before the account'], free.said['portfolio', 'before the account'])
    assert audit(s, shared(), sample=6).status=='PASS'
    peeking = replace(s, features=s.features | dict(mom=LeakyFeature(s.features['mom'], shifted(np.random.default_rng(3))[1])))
    assert audit(peeking, shared(), sample=6, quick=True).status=='FAIL'
    exam.books[exam.dates[3]] = None # With another book the same date decides otherwise
    assert {o.session for o in exam.alone()}=={str(exam.dates[3])}


def test_a_component_that_keeps_answers_by_date_is_honest():
    class Keeps:
        kept = {}
        def compute(self, view, universe=None):
            out = []
            for v in view:
                k = v.dataset_version,v.as_of
                if k not in self.kept: self.kept[k] = half_year(v)[0]
                out.append(self.kept[k])
            return np.array(out)
    s = strategy()
    assert audit(replace(s, features=s.features | dict(mom=Keeps())), shared(), sample=6).status=='PASS'


def test_who_keeps_peeks_by_date_and_version_is_not():
    kept,leak = {},shifted(np.random.default_rng(2))[1]
    def compute(view): return np.array([kept.setdefault((v.dataset_version, v.as_of), half_year(v)[0] + leak(v)[0]) for v in view])
    assert {'cut', 'poisoned'}<=found_by(feature(compute))


def test_every_bit_counts():
    leak = shifted(np.random.default_rng(3))[1]
    assert {'cut', 'poisoned'}<=found_by(feature(lambda view: half_year(view)*(1 + 1e-14*np.tanh(leak(view)))))
    asked = []
    def compute(view):
        asked.append(view)
        return half_year(view)*(1 + 1e-14*len(asked))
    assert found_by(feature(compute))>={'again'}


def test_a_fact_nobody_had_heard_of_yet_is_no_error():
    late = pd.Timestamp('2012-01-03')
    facts = pd.concat([market().facts, market().facts.head(1).assign(name='category', effective=late, known_at=late, value='7')])
    data = Rebuilt(snapshot(replace(market(), facts=facts)))
    def compute(view): return half_year(view) + np.nan_to_num(view.facts('category'))
    assert audit(feature(compute), data, sample=6).status=='PASS'


# --- Data and history

def test_data_that_learned_too_late_are_to_blame_and_not_the_strategy():
    a = market().actions
    late = (a.id=='USL1') & (a.kind=='dividend')
    data = Rebuilt(snapshot(replace(market(), actions=a.assign(known_at=a.known_at.mask(late, a.session + pd.Timedelta(days=60))))))
    first = audit(strategy(), data, sample=6, quick=True).first
    assert (first.check, first.step, first.id)==('cut', 'data', 'USL1')


def test_the_needed_history_is_found():
    for lookback in (40, 126, 200):
        s = strategy(features=dict(mom=dict(kind='momentum', lookback=lookback, skip=10), vol=dict(kind='volatility', window=42)),
            universe=dict(kind='static', tickers=IDS))
        a = audit(s, shared(), sample=4)
        longest = max(lookback, 42)
        assert {o.needed for o in a.warmup}=={longest+1} and a.declared==longest and not any(o.unstable for o in a.warmup)
        assert a.reads['feature mom']==['prices', 'actions'] and a.reads['universe']==['symbols']


def all_the_past(view):
    "Half-year growth over the deviation of all returns so far"
    return np.stack([half_year(v)[0]/np.nanstd(history(v, 'ret')[0][:int(history(v, 'ret')[1][0])+1], axis=0) for v in view])


def changes_its_mind(view): return half_year(view) + ((view.age()>400) & (view.age()<600))


@pytest.mark.parametrize('compute', [lambda view: view.lag('tr'), lambda view: half_year(view)*view.age(), all_the_past, changes_its_mind])
def test_dependence_on_the_beginning_is_a_warning(compute):
    a = audit(feature(compute), shared(), sample=4)
    assert a.status=='WARN' and [o.name for o in a.checks if o.status!='PASS']==['warm-up'] and a.warmup[-1].unstable


# --- Poison

@pytest.mark.parametrize('source', SOURCES)
@pytest.mark.parametrize('day', ['2009-12-31', '2010-06-30', '2012-03-15', '2013-12-30'])
def test_poison_is_valid_and_leaves_the_past_alone(source, day):
    t,other = market(),poisoned(market(), day, (source,)).validate()
    assert isinstance(other, Tables)
    was,now = (snapshot(o).tables.until(day) if day>'2010' else None for o in (t, other))
    if was is None: return
    for k,df in was.items():
        if k=='instruments': now.instruments['listed'] = df.listed
        pd.testing.assert_frame_equal(getattr(now, k), df, check_dtype=False)
    changed = {k for k,df in t.items() if not df.equals(getattr(other, k))}
    assert changed=={'symbols':{'symbols', 'instruments'}, 'prices':{'bars'}}.get(source, {source})


def test_poison_is_the_same_for_the_same_seed():
    a,b,c = (poisoned(market(), '2012-03-15', seed=o) for o in (1, 1, 2))
    assert a.bars.equals(b.bars) and a.facts.equals(b.facts) and not a.bars.close.equals(c.bars.close)


# --- What is said

def test_the_sample():
    assert sampled(10, 2).tolist()==[0, 9]
    for count,n in ((228, 12), (13, 12), (12, 12), (3, 2), (1, 2)):
        k = sampled(count, n, seed=5)
        assert len(set(k.tolist()))==len(k)==min(n, count) and k[0]==0 and k[-1]==count-1 and (np.diff(k)>0).all()
    assert not np.array_equal(sampled(228, 12, 0), sampled(228, 12, 1))


def test_the_chance_is_what_happens():
    "A leak that shows on 10 % of the dates is met by a sample as often as promised"
    rng,count,n = np.random.default_rng(0),100,12
    met = np.mean([np.isin(sampled(count, n, seed), rng.permutation(count)[:10]).any() for seed in range(2000)])
    assert abs(met - chance(.1, n, count))<.03


def test_a_rare_leak_is_missed_by_a_sample_and_found_by_all_dates():
    rare = shared().sessions[700]
    dates = shared().sessions[150::40]
    dates = np.union1d(dates, [rare])
    leak = shifted(np.random.default_rng(2))[1]
    s = feature(lambda view: half_year(view) + np.where((view.sessions==rare)[:,None], leak(view), 0))
    few = audit(s, shared(), dates, sample=4, quick=True)
    assert few.status=='PASS' and '4 of' in few.blind_spots[0]
    assert {o.session for o in audit(s, shared(), dates, sample=len(dates), quick=True).differences}=={str(rare)}


def test_what_is_said_is_plain_and_the_same_again():
    a,b = (audit(strategy(), snapshot(market()), sample=4) for _ in range(2))
    assert json.dumps(a.as_dict(), allow_nan=False)==json.dumps(b.as_dict(), allow_nan=False)
    d = a.as_dict()
    assert d['status']=='PASS' and d['of_dates']==a.count>len(d['dates'])==4 and d['warmup'][0]['needed']==130
    assert set(BLIND)<set(d['blind_spots']) and any('Facts, rates' in o for o in d['blind_spots'])
    html = a._repr_html_()
    assert 'PASS' in html and 'warm-up' in html and 'cannot see' in html
    bad = audit(leaking('feature', shifted(np.random.default_rng(0))[1]), shared(), sample=4)
    json.dumps(bad.as_dict(), allow_nan=False)
    assert 'FAIL' in bad._repr_html_() and str(bad).startswith('FAIL: small on small@')
    assert bad.as_dict()['differences'][0]['text']==str(bad.first)


def test_what_is_refused():
    with pytest.raises(ParameterError, match='two dates at least'): audit(strategy(), shared(), sample=1)
    with pytest.raises(NotASession): audit(strategy(), shared(), ['2012-01-01', '2012-06-29'])
    stranger = strategy(universe=dict(kind='static', tickers=['USL1', 'NONE1', 'TEC1']))
    with pytest.raises(ConfigError, match='no fund'): audit(stranger, shared())
    with pytest.raises(ParameterError, match='no date'): audit(strategy(), shared(), [])


def test_copies_are_fresh_all_the_way_down():
    @dataclass
    class Memo:
        n:int = 3
        kept:dict = field(default_factory=dict, init=False)
    old = Memo(5)
    old.kept['x'] = 1
    s = replace(strategy(), features=dict(mom=old))
    new = fresh(s).features['mom']
    assert new.n==5 and new.kept=={} and old.kept=={'x':1} and fresh(strategy())==strategy()


@dataclass(frozen=True)
class NoTerms:
    "Costs that fail wherever they are asked: the same failure twice is no proof of anything"
    def terms(self, view): raise KeyError('no table of costs')


class Locked:
    "Costs that cannot be copied, and so cannot be asked afresh"
    def __init__(self): self.lock = threading.Lock()
    def terms(self, view): return Proportional().terms(view)


@pytest.mark.parametrize(('costs', 'said'), [
    (NoTerms(), 'cannot be audited: costs.*no table of costs'), (Locked(), 'Locked cannot be copied')])
def test_what_cannot_be_asked_is_refused_and_does_not_pass(costs, said):
    with pytest.raises(ParameterError, match=said): audit(replace(strategy(), costs=costs), shared(), sample=2, quick=True)
