"""Every check passes, warns and blocks. Each case is made by changing one thing of a proposal that passes."""
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from quantetf.core import ParameterError, find_settings
from quantetf.data.schema import Tables
from quantetf.data.snapshot import open_snapshot
from quantetf.data.view import Fact, Panel
from quantetf.policy import BY_FUND, AccountRules, CheckLevels, Level, check_names
from quantetf.production.checks import accept, examine, liquidity, run_checks
from quantetf.production.proposal import Proposal, propose
from quantetf.production.runtime import produce
from quantetf.production.verify import verify
from quantetf.strategy import make_strategy

ROOT = Path(__file__).resolve().parent.parent
DAY = '2024-06-28'
FUNDS = ['USL1', 'GLD1', 'TEC1', 'EMG1', 'GVM1', 'CRP1']


@pytest.fixture(scope='module')
def settings(tmp_path_factory):
    place = tmp_path_factory.mktemp('checks')
    return replace(find_settings(ROOT, environ={}), data=place/'data', runs=place/'runs')


@pytest.fixture(scope='module')
def demo(settings): return open_snapshot('demo', settings)


def strategy(n=3, tickers=FUNDS, **more):
    return make_strategy(dict(universe=dict(kind='static', tickers=list(tickers)), features=dict(mom=dict(kind='momentum')),
        alpha=dict(kind='rank', feature='mom'), portfolio=dict(kind='top_n_equal', n=n, constraints=dict(cash_buffer=.01))) | more, 'case')


class Cases:
    "One method for each check: (proposal that passes, one that warns, one that blocks)"
    def __init__(self, demo, folder):
        self.demo,self.folder = demo,folder
        self.p = propose(strategy(), demo, DAY)
        self.held = self.with_file('AS_OF,,2024-05-31,', 'USL1,100,,', 'GLD1,40,,', 'CASH,20000,,')
        self.ids = self.p.panel.ids.tolist()
    def with_file(self, *lines, rules=None, day=DAY, **more):
        (self.folder/'mine.csv').write_text('\n'.join(['ticker,shares,date,locked', *lines]))
        return propose(rules or strategy(**more), self.demo, day, self.folder/'mine.csv')
    def at(self, p, **levels): return replace(p, strategy=replace(p.strategy, checks=replace(p.strategy.checks, **levels)))
    def before(self, **more):
        "A packet of May that left the holdings of `held`, at the closes of May"
        close = self.p.panel.view('2024-05-31').lag('close')[0]
        def row(id, n): return dict(instrument_id=id, current_shares=n, target_shares=n, price=round(float(close[self.ids.index(id)]), 6),
            price_date='2024-05-31', target_weight=.4, current_weight=.4)
        return dict(as_of='2024-05-31', status='published', rows=[row('USL1', 100.), row('GLD1', 40.)]) | more
    def with_panel(self, **change):
        "The proposal on a panel with other fields"
        p = self.p
        fields = p.panel._fields.changed(lambda name, v: change[name](np.array(v)) if name in change else v)
        return replace(p, panel=Panel(p.panel.sessions, p.panel.ids, fields, p.panel.version, p.panel._facts, p.panel.rate, p.panel._events,
            p.panel.exchange, p.panel.basis))
    def without(self, *tickers, behind=1):
        "The proposal on a panel in which the last closes of some funds are missing"
        row,cols = int(np.searchsorted(self.p.panel.sessions, np.datetime64(DAY))),[self.ids.index(o) for o in tickers]
        def cut(x):
            x[row-behind+1:row+1,cols] = np.nan
            return x
        return self.with_panel(close=cut)

    def schedule(self):
        missed = replace(self.p, before=self.before(as_of='2024-03-28'))
        return replace(self.p, before=self.before()),missed,self.at(missed, schedule=Level(0, 1))
    def timing(self):
        odd = replace(self.p, rules=replace(self.p.rules, fill='same_close'))
        return self.p,odd,self.at(odd, timing=Level(0, 0))
    def holdings(self):
        fresh = self.with_file('AS_OF,,2024-06-27,', 'USL1,100,,', 'CASH,20000,,')
        return fresh,self.held,self.with_file('AS_OF,,2024-02-28,', 'USL1,100,,', 'CASH,20000,,')
    def reconciliation(self):
        def left(usl, gld):
            b = self.before()
            for o,n in zip(b['rows'], (usl, gld)): o.update(target_shares=float(n), current_shares=0.)
            return replace(self.held, before=b)
        return left(100, 40),left(95, 40),left(400, 400)
    def account(self):
        kept = self.with_file('CMD1,40,,', 'CASH,20000,,', rules=strategy(account=dict(outside='keep')))
        return self.held,kept,self.at(kept, account=Level(0, 0))
    def freshness(self):
        bought = str(self.p.panel.ids[self.p.trade!=0][0])
        other = next(o for o in FUNDS if self.p.trade[self.ids.index(o)]==0)
        return self.p,self.without(other),self.without(bought)
    def staggering(self): return self.p,self.without('USL1'),self.without('USL1', 'GLD1', 'TEC1', 'EMG1')
    def last_bar(self):
        row = int(np.searchsorted(self.p.panel.sessions, np.datetime64(DAY)))
        def part(x):
            def cut(v):
                v[row] *= x
                return v
            return self.with_panel(volume=cut)
        return self.p,part(.2),part(.02)
    def restatement(self):
        cut = self.demo.until('2024-05-31')
        bars = cut.tables.bars
        wrong = bars.assign(close=bars.close*np.where((bars.id=='USL1') & (bars.session=='2024-03-15'), 1.1, 1))
        class Old: id,tables = 'another',Tables(**dict(cut.tables.items()) | dict(bars=wrong))
        class Same: id,tables = 'another',cut.tables
        def of(o): return replace(self.held, before=self.before(), earlier=o)
        return of(Same),of(Old),self.at(of(Old), restatement=Level(0, 0))
    def prices(self):
        def moved(by):
            b = self.before()
            b['rows'][0]['price'] *= by
            return replace(self.held, before=b)
        return replace(self.held, before=self.before()),moved(1.001),moved(.5)
    def adjustment(self):
        p = self.p
        off = replace(p, panel=Panel(p.panel.sessions, p.panel.ids, p.panel._fields, p.panel.version, p.panel._facts, p.panel.rate,
            p.panel._events, p.panel.exchange, np.where(p.panel.ids=='USL1', 'split_adjusted', p.panel.basis)))
        return p,off,self.at(off, adjustment=Level(0, 0))
    def mixed_prices(self):
        p,eras = self.p,[Fact('USL1', d, d, b) for d,b in (('2006-01-03', 'total_return'), ('2012-01-03', 'as_traded'))]
        panel = Panel(p.panel.sessions, p.panel.ids, p.panel._fields, p.panel.version, p.panel._facts | dict(price_basis=eras),
            p.panel.rate, p.panel._events, p.panel.exchange, np.where(p.panel.ids=='USL1', 'mixed', p.panel.basis))
        off = replace(p, panel=panel, strategy=replace(p.strategy, accept_mixed=('USL1',)))
        return p,off,self.at(off, mixed_prices=Level(0, 0))
    def announcements(self):
        eve = propose(strategy(n=1, tickers=['TEC1', 'USL1']), self.demo, '2014-06-16', force=True)
        eve = replace(eve, trade=np.where(eve.panel.ids=='TEC1', 10., 0.))
        return self.p,eve,self.at(eve, announcements=Level(0, 0))
    def coverage(self):
        def without(*tickers):
            scores = self.p.decision.signals.scores.copy()
            scores[0,[self.ids.index(o) for o in tickers]] = np.nan
            s = self.p.decision.signals
            return replace(self.p, decision=replace(self.p.decision, signals=type(s)(s.view, s.universe, s.features, scores)))
        return self.p,without('EMG1'),without('EMG1', 'USL1', 'TEC1', 'GVM1')
    def abstentions(self): return self.p,self.coverage()[1],self.at(self.coverage()[1], abstentions=Level(0, 0))
    def cut_margin(self):
        return self.p,self.at(self.p, cut_margin=Level(.5)),self.at(self.p, cut_margin=Level(.5, .6))
    def weights(self):
        heavy = self.with_file('GLD1,900,,', 'CASH,0,,', rules=strategy(portfolio=dict(kind='top_n_equal', n=3,
            constraints=dict(max_weight=.4, max_turnover=.1))))
        return self.p,heavy,replace(self.p, decision=replace(self.p.decision, weights=self.p.decision.weights*1.2))
    def cash(self):
        return self.p,self.at(replace(self.p, trade=self.p.trade*1.1), cash=Level(0, .5)),replace(self.p, trade=self.p.trade*3)
    def turnover(self):
        p = self.held
        return p,self.at(p, turnover=Level(.1)),self.at(p, turnover=Level(.1, .2))
    def trades(self): return self.p,self.at(self.p, trades=Level(2)),self.at(self.p, trades=Level(1, 2))
    def rounding(self):
        small = propose(strategy(), self.demo, DAY, capital=3000.)
        return self.p,small,self.at(small, rounding=Level(.001, .002))
    def liquidity(self):
        return self.p,propose(strategy(), self.demo, DAY, capital=2e7),propose(strategy(), self.demo, DAY, capital=1e9)
    def drift(self):
        p = replace(self.p, before=self.before())
        return p,self.at(p, drift=Level(.01)),self.at(p, drift=Level(.01, .02))


@pytest.fixture(scope='module')
def cases(demo, tmp_path_factory): return Cases(demo, tmp_path_factory.mktemp('files'))


def of(p, key): return next(o for o in run_checks(p) if o.key==key)


@pytest.mark.parametrize('key', check_names())
def test_it_passes_warns_and_blocks(key, cases):
    found = [of(p, key) for p in getattr(cases, key)()]
    assert [o.status for o in found]==['PASS', 'WARN', 'BLOCK'], [o.evidence for o in found]
    assert all(o.evidence and o.limit for o in found)
    if key in BY_FUND: assert found[2].funds and not found[0].funds


@pytest.mark.parametrize('key', BY_FUND)
def test_funds_are_left_alone_instead(key, cases):
    p = getattr(cases, key)()[2]
    funds = of(p, key).funds
    p,checks = examine(replace(p, strategy=replace(p.strategy, checks=replace(p.strategy.checks, restrict=(key,)))))
    assert set(funds)<=set(p.frozen) and (p.trade[np.isin(p.panel.ids, list(p.frozen))]==0).all()
    assert next(o.status for o in checks if o.key==key)!='BLOCK' and p.cash_after>=-1e-6


def test_a_late_fund_does_not_keep_others_from_being_sold(cases):
    "Held: a fund to be sold entirely, and one without a close. Restricting the second, the first is sold as it would have been"
    out = next(o for o in FUNDS if cases.p.target[cases.ids.index(o)]==0)
    p = cases.with_file(f'{out},200,,', 'USL1,50,,', 'CASH,1000,,')
    assert p.trade[cases.ids.index(out)]==-200
    row = int(np.searchsorted(p.panel.sessions, np.datetime64(DAY)))
    def cut(v):
        v[row,cases.ids.index('USL1')] = np.nan
        return v
    fields = p.panel._fields.changed(lambda name, v: cut(np.array(v)) if name=='close' else v)
    late = replace(p, panel=Panel(p.panel.sessions, p.panel.ids, fields, p.panel.version, p.panel._facts, p.panel.rate, p.panel._events))
    assert of(late, 'freshness').status=='BLOCK'
    free,checks = examine(cases.at(late, restrict=('freshness',)))
    assert free.trade[cases.ids.index(out)]==-200 and free.trade[cases.ids.index('USL1')]==0
    assert not [o for o in checks if o.status=='BLOCK']


def test_what_blocks_on_a_day_without_trades_warns(cases):
    wait = propose(strategy(), cases.demo, '2024-06-14')
    assert of(cases.at(wait, cut_margin=Level(0, 0)), 'cut_margin').status=='WARN'


def test_every_level_can_be_written_in_the_file():
    s = strategy(checks={k:dict(warn=.5, block=.75) for k in check_names()} | dict(restrict=list(BY_FUND)))
    assert all(getattr(s.checks, k)==Level(.5, .75) for k in check_names()) and CheckLevels()!=s.checks


def test_a_word_is_part_of_the_run_and_of_the_packet(settings, tmp_path):
    (tmp_path/'strategies').mkdir()
    (tmp_path/'strategies'/'strict.yaml').write_text('''universe: {kind: static, tickers: [USL1, GLD1, TEC1]}
features: {mom: {kind: momentum}}
alpha: {kind: rank, feature: mom}
portfolio: {kind: top_n_equal, n: 1}
checks: {trades: {warn: 0, block: 0}, turnover: {block: 0}}
account: {restricted: [USL1]}
''')
    mine = replace(settings, configs=tmp_path, strategy='strict')
    (tmp_path/'mine.csv').write_text('ticker,shares,date\nAS_OF,,2024-06-28\nGLD1,10,\nCASH,50000,\n')
    held = str(tmp_path/'mine.csv')
    blocked = produce(DAY, holdings=held, settings=mine)
    assert blocked.status=='blocked' and not list(blocked.folder.glob('recommendations*'))
    word = produce(DAY, holdings=held, accept='trades=one order is fine; turnover=so is this much', settings=mine)
    assert word.status=='published' and word.run_id!=blocked.run_id
    assert verify(word.folder, mine).ok and verify(blocked.folder, mine).ok
    assert word.run.manifest['inputs']['accepted']==dict(trades='one order is fine', turnover='so is this much')
    packet = json.loads((word.folder/'recommendations.json').read_text())
    assert [o['check'] for o in packet['accepted']]==['turnover', 'trades'] and packet['restricted'][0]['instrument_id']=='USL1'
    page = word.report.read_text()
    assert 'so is this much' in page and 'left alone, restricted in the strategy file' in page
    other = produce(DAY, holdings=held, accept='trades=another reason; turnover=so is this much', settings=mine)
    assert other.run_id!=word.run_id
    assert produce(DAY, holdings=held, accept='trades=ok', settings=mine).status=='blocked'
    for text,said in (('weights=ok; trades=x; turnover=y', 'cannot be accepted'), ('tradez=ok', "did you mean 'trades'")):
        with pytest.raises(ParameterError, match=said): produce(DAY, holdings=held, accept=text, settings=mine)


def test_accepting_leaves_other_checks_alone(cases):
    checks = run_checks(cases.liquidity()[2])
    after = accept(checks, dict(liquidity='worked over two weeks'))
    assert [(a.name, a.status) for a,b in zip(after, checks) if a!=b]==[('liquidity', 'WARN')]


def test_slippage_is_paid_for(demo):
    rules = replace(strategy(portfolio=dict(kind='top_n_equal', n=3)), account=AccountRules(slippage_bps=100))
    p = propose(rules, demo, DAY)
    cost = p.trade@(p.book.price*1.01) + p.cost.sum()
    assert 0<=p.book.cash-cost<p.book.price.max()*3 and of(p, 'cash').status=='PASS'


def test_announced_dividends_are_named_with_their_size(demo):
    p = propose(strategy(n=6), demo, DAY)
    found = of(p, 'announcements')
    acts = demo.tables.actions
    due = acts[(acts.session==pd.Timestamp('2024-07-01')) & acts.id.isin(FUNDS)]
    assert found.status=='PASS' and all(f'{o.id} pays {o.value:.4g}' in found.evidence for o in due.itertuples()) and len(due)>0


def test_one_fund_of_unknown_volume_hides_no_other(cases, monkeypatch):
    p,_,much = cases.liquidity()
    for case,j,status in ((much, int(np.flatnonzero(much.trade)[0]), 'BLOCK'), (p, int(np.flatnonzero(p.trade)[0]), 'WARN')):
        usual = np.where(np.arange(len(p.trade))==j, np.nan, case.usual)
        with monkeypatch.context() as m:
            m.setattr(Proposal, 'usual', property(lambda self, x=usual: x))
            found = liquidity(case)
        assert found.status==status and f'not known for every fund that is traded: {p.panel.ids[j]}' in found.evidence
