"The two reports as files, and as pages in a browser"
import math
import os
import re
import shutil
import subprocess
import sys
from datetime import date, timedelta
from functools import cache
from importlib.resources import files

import pytest

from quantetf.report import backtest_page, production_page, quality_page

EVIL = '<script>alert("x")</script>'
CHECKS = [dict(name='freshness', status='PASS', evidence='All funds have a bar.', limit='all'),
    dict(name='cut_margin', status='WARN', evidence='0.07 points decide the last place.', limit='0.25 points')]
DATASET = dict(name='us33', id='3e4d'*16, first='2005-01-03', last='2026-05-01', instruments=33, notes=['Closes are split-adjusted.'])
COMMON = dict(run_id='5cb1'*16, synthetic=False, strategy='core20', description='', dataset=DATASET, schedule='monthly, last session',
    currency='USD', alpha='rank of mom', portfolio='top 3', features=dict(mom='momentum, lookback 252', vol='volatility'),
    fill='next_close', sizing='at_decision',
    universe=dict(size=9, eligible=8, chosen_on='2012-01-03', how='static', excluded=[dict(ticker='OLD', reason='closed')]),
    hashes=dict(config='a6', code='23'), config=dict(portfolio=dict(kind='top_n_equal', n=3)), versions=dict(quantetf='0.1.0'))


def trade(k, action, now, target):
    n = 1000*(target-now)
    return dict(order=k, ticker=f'F{k:03d}', instrument_id=f'I{k}', name=f'Fund number {k} of a family with a long name',
        asset_class='equity', action=action, current_weight=now, target_weight=target, delta_weight=target-now, price=10.5,
        price_date='2024-06-28', current_shares=1000*now, target_shares=1000*target, delta_shares=n, notional=n*10.5,
        est_cost=abs(n)*.01, score=.5-k/100, rank=k,
        reason=f'Rank {k}, was {k+3}: a reason that takes more than a few words to give.')


def packet(funds=8, **changes):
    rows = [trade(1, 'sell_all', .33, 0.), trade(2, 'sell_part', .34, .33), trade(3, 'buy_new', 0., .33),
        trade(4, 'buy_more', .32, .33)]
    scores = [dict(ticker=f'F{k:03d}', name=f'Fund number {k}', score=.5-k/1000, rank=k, selected=k<4, why='',
        features=dict(mom=.5-k/1000, vol=.2), spark=[1+math.sin(k+j/9)/9 for j in range(52)]) for k in range(1, funds)]
    scores.append(dict(ticker='NEW', name='New', score=None, rank=None, selected=False, why='abstains: too young', features=None, spark=[]))
    return COMMON | dict(schema='quantetf.packet/1', status='published', forced=False, as_of='2024-06-28', execution_session='2024-07-01',
        is_rebalance=True, decided_on='2024-06-28', next_due='2024-07-31',
        book=dict(source='holdings.csv', as_of='2024-06-28', nav=1e5, cash=1e3, cash_weight=.01),
        after=dict(cash=900., cash_weight=.009, cash_target_weight=.01), spark_skip=21, checks=CHECKS, shares_note=None,
        totals=dict(trades=4, sells=3570., buys=3570., cost=7.14, cost_bps=.7, turnover_one_way=.34), rows=rows, scores=scores,
        score_name='mom', score_unit='%', previous=dict(run_id='25c0'*16, as_of='2024-05-31'),
        diff=[dict(ticker='F001', previous_target=.33, target=0., change=-.33),
            dict(ticker='F002', previous_target=.33, target=.33, change=0.)]) | changes


def hold():
    rows = [trade(k, 'hold', w, .33) | dict(order=None, notional=None, est_cost=None) for k,w in ((1, .35), (2, .32), (3, .31))]
    return packet(status='hold', is_rebalance=False, as_of='2024-06-14', decided_on='2024-05-31', rows=rows, scores=[], diff=[],
        previous=None)


def blocked():
    nothing = dict(trades=0, sells=None, buys=None, cost=None, cost_bps=None, turnover_one_way=None)
    failed = dict(name='freshness', status='BLOCK', evidence='SPLG ends on 2024-06-27.', limit='all')
    return packet(status='blocked', rows=[], scores=[], diff=[], previous=None, totals=nothing, checks=[failed, CHECKS[1]],
        after=dict(cash=None, cash_weight=None, cash_target_weight=None))


def backtest(years=4, funds=5, **changes):
    start = date(2010, 1, 4)
    dates = [str(d) for k in range(365*years) if (d := start + timedelta(k)).weekday()<5]
    def curve(a, b): return [1e5*math.exp(a*k/252 + b*math.sin(k/40) - max(0, k-len(dates)+40)/100) for k in range(len(dates))]
    months = dates[::21]
    figures = dict(total_return=.3, annual_return=.066, annual_volatility=.12, sharpe=.55, sortino=None, max_drawdown=-.14)
    return COMMON | dict(schema='quantetf.backtest/1', start=dates[0], end=dates[-1], sessions=len(dates), rebalances=len(months),
        holds=[dict(session=months[5], reason='fewer than 3 scores')], capital=1e5, benchmark='SPY', dates=dates,
        costs='10 bp of traded notional', nav=curve(.07, .1), benchmark_nav=curve(.05, .2),
        metrics=dict(strategy=figures, benchmark=figures, relative=dict(beta=.4)),
        decisions=[dict(session=d, fill_session=d, status='ok', turnover_one_way=.2, cost=1., holdings=3, nav=1e5) for d in months],
        weights=dict(dates=months, tickers=[f'F{k:03d}' for k in range(funds)],
            target=[[(1+(i*k)%7)/(4*funds) for k in range(funds)] for i in range(len(months))]),
        trades=dict(count=31, notional=6e5, cost=612.), turnover_annual_one_way=1.1, cost_drag_annual=.002, dividends=2410.,
        interest=None, notes=['Cash earns nothing.'], checks=CHECKS) | changes


def gain(k, ticker='', asset_class='equity'):
    price,dividends,costs = 900.*(7-k),50.*k,10.+k
    return dict(ticker=ticker or f'F{k:03d}', asset_class=asset_class, price=price, dividends=dividends, costs=costs,
        total=price+dividends-costs)


def audited(**changes):
    same = dict(status='PASS', evidence='3 dates asked, all the same')
    checks = [dict(name=k, limit=f'the same when {k}') | same for k in ('again', 'alone', 'cut')]
    return dict(schema='quantetf.audit/1', status='PASS', strategy='core20', dataset='us33@3e4d', seed=0, of_dates=48, checks=checks,
        dates=['2010-01-29', '2012-03-30', '2013-12-31'], differences=[], reads={}, warmup=[], declared=253,
        chance={'0.01':.06, '0.1':.29, '0.5':.88}, blind_spots=['Parameters tuned on the whole sample.']) | changes


def peeking():
    leak = dict(check='cut', source='what was known then', session='2012-03-30', step='feature', name='mom', id='F001', got=-.25,
        expected=.5, text='feature mom of F001 on 2012-03-30 is -0.25, expected 0.5 (what was known then)')
    failed = dict(name='cut', status='FAIL', evidence='1 of 3 dates differs', limit='the same when cut')
    return audited(status='FAIL', differences=[leak], checks=[*audited()['checks'][:2], failed])


def told(funds=20, **changes):
    "A backtest whose run has measured all it can"
    parts = [gain(k) for k in range(funds)]
    whole = {k:sum(o[k] for o in parts) for k in ('price', 'dividends', 'costs', 'total')}
    contribution = dict(funds=parts, classes=[dict(asset_class='equity') | whole], interest=123., flows=1500., gain=whole['total']+123.)
    return backtest(audit=audited(), contribution=contribution, gross=dict(annual_return=.0712, total_return=.33),
        cash_use=dict(average_weight=.0123, drag_annual=.0034), money_weighted_return=.0543,
        flows=[dict(session='2011-01-03', amount=2000.), dict(session='2012-01-03', amount=-500.)],
        execution=dict(words=['At most 5 % of a session\'s volume of a fund; the rest is carried.'])) | changes


def finding(rule, id, sessions, action):
    return dict(rule=rule, id=id, sessions=sessions, action=action, evidence=f'seen in {id}.csv, row 7')


def quality(funds=12, **changes):
    "Findings of a curation and the record of its snapshot"
    ids,days = [f'F{k:04d}' for k in range(funds)],[str(date(2020, 3, 2) + timedelta(k)) for k in range(4)]
    findings = [finding('missing_sessions', id, days[:1+k%4], 'flag') for k,id in enumerate(ids) if k%3==0]
    findings += [finding('no_bar', ids[1], days[:1], 'quarantine'), finding('twice', ids[2], days[1:2], 'repair')]
    findings += [finding('price_basis', id, [], 'measure') for id in ids]
    def era(id, year, basis): return dict(id=id, year=year, basis=basis, events=4, evidence='4 ex-dates agree')
    kinds = ('as_traded', 'split_adjusted', 'total_return', 'mixed', 'unknown')
    eras = [era(id, y, kinds[y%5] if k==1 else 'as_traded') for k,id in enumerate(ids) for y in range(2005, 2025)]
    change = dict(kind='corrected_price', id=ids[0], sessions=days[:1], rows=1, cells=1, restates=True, evidence='close 1 to 2')
    report = dict(schema='quantetf.curation/2', adjusted_through='2024-06-28', notes=['Closes are split-adjusted.'], findings=findings,
        eras=eras, changes=[change])
    def row(k, id): return dict(id=id, name=f'Fund number {k}', first='2005-01-03' if k else '2009-07-01', missing=(1+k%4)*(k%3==0),
        last='2024-06-28' if k!=3 else '2019-05-31', basis='mixed' if k==1 else 'as_traded', gaps=[days[:2]]*(k%3==0))
    record = dict(id='7bef'*16, first='2005-01-03', last='2024-06-28', sessions=4904, exchange='XNYS', synthetic=False, notes=['A note.'],
        adjusted_through='2024-06-28', source=dict(kind='csv', raw='abc'), coverage=[row(k, id) for k,id in enumerate(ids)])
    return dict(report=report | changes, name='us33', record=record)


def clean():
    "A dataset without anything to say about it"
    q = quality(3, findings=[], eras=[], changes=[])
    whole = dict(first='2005-01-03', last='2024-06-28', missing=0, basis='as_traded')
    return q | dict(record=q['record'] | dict(synthetic=True, adjusted_through='', coverage=[o | whole for o in q['record']['coverage']]))


def evil(data):
    "The same data with markup wherever a name or a text may come from outside"
    if isinstance(data, dict): return {k: evil(v) for k,v in data.items()}
    if isinstance(data, list): return [evil(v) for v in data]
    names = 'holdings.csv', 'SPY', 'core20', 'static', 'F001', 'F003', 'F0000', 'F0001', 'corrected_price', 'no_bar'
    free = data in names or isinstance(data, str) and ' ' in data
    return EVIL + data if free else data


def first():
    row = trade(3, 'buy_new', 0., .33) | dict(delta_shares=None, current_shares=None, target_shares=None)
    return packet(synthetic=True, shares_note='No splits are known.', rows=[row])


def alone():
    figures = dict(strategy=dict(annual_return=.07), benchmark=None, relative=None)
    return backtest(synthetic=True, benchmark=None, benchmark_nav=None, metrics=figures)


PAGES = dict(published=lambda: production_page(packet()), first=lambda: production_page(first()),
    hold=lambda: production_page(hold()), blocked=lambda: production_page(blocked()), backtest=lambda: backtest_page(backtest()),
    alone=lambda: backtest_page(alone()), evil=lambda: production_page(evil(packet())),
    evil_backtest=lambda: backtest_page(evil(backtest())), quality=lambda: quality_page(**quality()), clean=lambda: quality_page(**clean()),
    told=lambda: backtest_page(told()), peeking=lambda: backtest_page(told(audit=peeking())),
    evil_told=lambda: backtest_page(evil(told(audit=peeking()))), evil_quality=lambda: quality_page(**evil(quality()) | dict(name=EVIL)))
PAGES = {k: cache(make) for k,make in PAGES.items()} # Most are looked at more than once


@pytest.mark.parametrize('name', PAGES)
def test_page_is_complete_in_itself(name):
    html = re.sub(r'<script>.*?</script>', '', PAGES[name](), flags=re.S)
    assert not re.findall(r'(?:src|href)=["\'](?!#)|@import|url\(|https?:', html)
    ids = re.findall(r' id="([^"]*)"', html)
    assert len(ids)==len(set(ids))
    assert set(re.findall(r'href="#([^"]*)"', html))<=set(ids)
    assert not re.findall(r'<th(?![^>]*scope=)[ >]', html), 'a header cell without scope'
    assert not re.findall(r'role="img"(?![^>]*aria-label="[^"])', html), 'a picture without words'
    assert html.count('<table')==html.count('<caption'), 'a table without caption'


@pytest.mark.parametrize('name', ['evil', 'evil_backtest', 'evil_told', 'evil_quality'])
def test_names_stay_text(name):
    html = PAGES[name]()
    assert '<script>alert' not in html and '&lt;script&gt;alert' in html


@pytest.mark.parametrize('gone', [None, math.nan])
def test_what_is_not_known_is_a_dash_and_never_a_zero(gone):
    lost = 'price', 'current_shares', 'target_shares', 'delta_shares', 'est_cost', 'score', 'current_weight'
    row = trade(3, 'buy_new', 0., .33) | dict.fromkeys(lost, gone)
    after = dict(cash=gone, cash_weight=gone, cash_target_weight=gone)
    html = production_page(packet(rows=[row], after=after))
    html += backtest_page(backtest(cost_drag_annual=gone, turnover_annual_one_way=gone))
    words = re.sub(r'<style>.*?</style>|<script.*?</script>', '', html, flags=re.S)
    assert not re.search(r'\b(None|nan|NaN)\b', words)
    cells = re.search(r'<tr role="row">\s*<td role="cell" class="c-num r">3</td>.*?</tr>', words, re.S)[0]
    assert re.search(r'class="c-now r"><span class="nul" title="not known"', cells)
    assert re.search(r'class="c-px r"><span class="nul" title="no price"', cells)
    assert re.search(r'class="c-shr r"><span class="nul" title="left empty"', cells)


def test_states_are_said_in_words():
    pages = {k: PAGES[k]() for k in ('published', 'first', 'hold', 'blocked', 'alone', 'quality', 'clean')}
    title = {k: re.search('<title>(.*)</title>', v)[1] for k,v in pages.items()}
    synthetic = {k for k,v in pages.items() if '</svg>SYNTHETIC: invented prices' in v}
    assert synthetic=={'first', 'alone', 'clean'}=={k for k,v in title.items() if v.startswith('SYNTHETIC')}
    assert title['hold'].startswith('HOLD: no trades on 2024-06-14') and title['blocked'].startswith('BLOCKED: do not trade')
    assert {k for k,v in pages.items() if '<table class="trades"' in v}=={'published', 'first'}
    assert 'SPLG ends on' in pages['blocked'] and 'The next decision is due on' in re.sub('<[^>]*>', '', pages['hold'])


def test_pages_fit_in_a_mail():
    assert len(production_page(packet(funds=250)).encode())<400_000
    assert len(backtest_page(backtest(years=20, funds=60)).encode())<400_000
    assert len(quality_page(**quality(funds=5000)).encode())<400_000


def test_results_from_before_the_list_was_chosen_are_shaded_and_said():
    def shaded(on):
        html = backtest_page(backtest(universe=COMMON['universe'] | dict(chosen_on=on)))
        return {k: html.count(k) for k in ('class="fshade"', 'class="past"')},re.sub('<[^>]*>', '', html)
    marks,words = shaded('2012-01-03')
    assert marks=={'class="fshade"': 4+5+1, 'class="past"': 3+3}, 'four plots, five funds and cash; three years twice'
    assert 'results before that date know who survived, and are shaded' in words and 'Shaded: before the fund list was chosen' in words
    marks,words = shaded('2009-12-31')
    assert set(marks.values())=={0} and 'know who survived' not in words
    assert 'survivorship is not excluded anywhere' in shaded(None)[1]


def words(html):
    "What a reader sees, on one line"
    return ' '.join(re.sub('<[^>]*>', ' ', re.sub('<(style|script)[^>]*>.*?</\\1>', '', html, flags=re.S)).replace('\xa0', ' ').split())


def ids(html): return set(re.findall('<section id="([^"]*)"', html))


OPTIONAL = dict(contribution='gain', flows='payments', audit='audit')


@pytest.mark.parametrize('key', ['audit', 'contribution', 'gross', 'cash_use', 'flows', 'execution'])
@pytest.mark.parametrize('gone', [None, 'absent', 'empty'])
def test_what_a_run_has_not_measured_has_no_place(key, gone):
    data = told()
    if gone=='absent': del data[key]
    else: data[key] = None if gone is None or key!='flows' else []
    html,whole = backtest_page(data),PAGES['told']()
    said = dict(gross='Gross return', cash_use='Cash drag', flows='Money-weighted return', execution='the rest is carried',
        contribution='Contribution', audit='decided again')[key]
    assert ids(whole)-ids(html)=={OPTIONAL[key]}&ids(whole) if key in OPTIONAL else ids(whole)==ids(html)
    assert said in words(whole) and said not in words(html)
    assert ids(whole)-ids(PAGES['backtest']())==set(OPTIONAL.values())


def rows_of(html, caption):
    "Row header -> its figures, of a table"
    table = re.search(f'<caption[^>]*>(?:<b>)?{caption}.*?</table>', html, re.S)[0]
    def figures(row): return [float(o.replace(',', '').replace('−', '-')) for o in re.findall('<td class="r[^>]*>(−?[\\d,.]+)</td>', row)]
    return {re.search('scope="row"[^>]*>(.*?)</th>', row)[1]:figures(row) for row in re.findall('<tr>.*?</tr>', table, re.S)[1:]}


def test_gains_add_up_to_the_gain():
    html = PAGES['told']()
    rows = rows_of(html, 'Gain by fund')
    assert list(rows)==['F000', 'F001', 'F002', 'F003', 'F004', 'F005', 'F006', 'nine others', 'F016', 'F017', 'F018', 'F019', 'Together',
        'Interest on cash', 'Gain']
    funds = [v for k,v in rows.items() if k.startswith('F') or 'others' in k]
    assert [sum(o) for o in zip(*funds, strict=True)]==pytest.approx(rows['Together'], abs=8) # Each is rounded
    assert rows['Gain'][0]==pytest.approx(rows['Together'][0]+rows['Interest on cash'][0], abs=1.5)
    assert all(total==pytest.approx(price+dividends+costs, abs=1.5) for total,price,dividends,costs in funds)
    middle = rows_of(html, 'Gain by fund in the middle')
    assert len(middle)==9 and sum(v[0] for v in middle.values())==pytest.approx(rows['nine others'][0], abs=5)
    assert rows_of(html, 'Gain by asset class')['Together']==rows['Together']
    assert html.count('class="bar bb"')>0<html.count('class="bar bo"')
    assert 'F019 lost most, 9,879 of the 35,767 USD lost; F000 brought most, 6,290; trading cost 390.' in words(html)


def test_a_gain_that_is_not_explained_is_said():
    data = told()
    data['contribution'] = data['contribution'] | dict(gain=data['contribution']['gain']+1000)
    assert rows_of(backtest_page(data), 'Gain by fund')['Not explained']==[1000]
    hole = told()
    hole['contribution']['funds'][3] |= dict(dividends=None, total=None)
    rows = rows_of(backtest_page(hole), 'Gain by fund')
    assert len(rows['Together'])==2 and 'Not explained' not in rows, 'a sum with a hole is a dash'


def test_nothing_held_and_nothing_moved_still_make_a_page():
    nothing = dict(funds=[], classes=[], interest=None, flows=0., gain=0.)
    assert rows_of(backtest_page(told(contribution=nothing)), 'Gain by fund')['Gain']==[0]
    assert 'not known' in words(backtest_page(told(contribution=nothing | dict(classes=[gain(1, asset_class=None)]))))


def test_an_audit_says_what_it_asked_and_what_it_cannot_see():
    html = PAGES['told']()
    assert 'Three of 48 decision dates were decided again without the future: nothing changed.' in words(html)
    assert 'every second date, 88 %; on one in ten, 29 %; on one in a hundred, 6 %' in words(html)
    assert '<details class="group">\n<summary><b>What this audit cannot see</b>' in html and 'AUDIT FAILED' not in html
    bad = PAGES['peeking']()
    text = words(bad)
    assert '<title>AUDIT FAILED: 6.6' in bad and 'Audit failed' in text
    assert bad.index('AUDIT FAILED: do not believe')<bad.index('<h1>')
    assert 'feature mom of F001 on 2012-03-30 is −0.25, expected 0.5' in text and 'id="audit"' in bad and 'href="#audit"' in bad
    audit = re.search('<section id="audit".*?</section>', bad, re.S)[0]
    assert re.findall('class="st (\\w+)"', audit)==['FAIL', 'PASS', 'PASS']


def test_payments_have_two_rates_and_move_no_curve():
    html = PAGES['told']()
    text = words(html)
    assert 'Time-weighted return, % a year 6.6 6.6 Money-weighted return, % a year 5.4' in text
    assert 'a payment in or out moves no line' in text and 'moves no line' not in words(PAGES['backtest']())
    assert 'One payment in (2,000 USD) and one payment out (500 USD): money-weighted 5.4 % a year, time-weighted 6.6 %.' in text
    many = [dict(session=f'20{k:02d}-01-03', amount=100.) for k in range(10, 24)]
    assert '<details class="group" open>\n<summary><b>Payments' in html
    assert '<details class="group">\n<summary><b>Payments' in backtest_page(told(flows=many))


def test_the_page_on_data_says_what_wants_a_person():
    text = re.sub('<[^>]*>', '', re.sub('<(style|script)>.*?</\\1>', '', PAGES['quality'](), flags=re.S)).replace('\xa0', ' ')
    assert '12 funds, 4,904 sessions; 7 points need your attention' in text, 'four gaps, one row set aside, one mixed fund, one restated'
    assert 'F0001 is adjusted in some years and not in others' in text and 'other numbers now: F0000' in text
    assert 'Ten sessions missing, in four funds; F0003 ends before 2024-06-28' in text
    assert PAGES['quality']().count('<path class="fo"')==4
    clean = PAGES['clean']()
    assert 'nothing needs your attention' in clean and '<details' not in clean and 'id="basis"' not in clean


def test_years_are_told_by_letters_and_not_by_colour_alone():
    html = PAGES['quality']()
    cells = re.search('<span class="tk">F0001</span></th>(.*?)</tr>', html)[1]
    assert ''.join(re.findall('<td[^>]*>(.)</td>', cells))=='TSRM?'*4
    assert html.count('<i class="sw ')==5
    evidence = re.search('<b>Year by year</b>.*?</details>', html, re.S)[0]
    assert evidence.count('F0001')==20+1 and 'F0002' not in evidence and 'mixed: 4 ex-dates agree' in evidence


def test_of_five_thousand_funds_those_with_something_to_see_are_shown():
    q = quality(funds=5000)
    for k,c in enumerate(q['record']['coverage']): c['missing'] = int(k>=4990)
    html = quality_page(**q)
    shown = re.findall('<span class="tk">(F\\d+)</span><div', html)
    assert len(shown)==120 and shown[-10:]==[f'F{k}' for k in range(4990, 5000)]
    assert '4,880 more funds without a gap' in html and 'more; the JSON beside this page has all of them' in html


def test_bytes_do_not_depend_on_the_process(root):
    code = 'import hashlib, test_report as t; print(hashlib.sha256("".join(f() for f in t.PAGES.values()).encode()).hexdigest())'
    def run(seed):
        env = os.environ | dict(PYTHONHASHSEED=seed, PYTHONPATH=os.pathsep.join([str(root), str(root/'tests')]))
        return subprocess.run([sys.executable, '-c', code], cwd=root, env=env, capture_output=True, text=True, check=True).stdout
    assert run('1')==run('2')!=''


def luminance(colour):
    r,g,b = (int(c*2 if len(c)==1 else c, 16)/255 for c in re.findall('..' if len(colour)==7 else '.', colour[1:]))
    return sum(w*(c/12.92 if c<=.03928 else ((c+.055)/1.055)**2.4) for w,c in zip((.2126, .7152, .0722), (r, g, b)))


@pytest.mark.parametrize('theme', ['light', 'dark'])
def test_text_can_be_read(theme):
    css = files('quantetf').joinpath('templates/style.css').read_text()
    light,dark = (dict(re.findall(r'--(\w+): (#\w+);', block)) for block in re.findall(r':root \{(.*?)\}', css, re.S)[:2])
    colour = light if theme=='light' else light | dark
    pairs = [(text, ground) for ground in ('paper', 'panel', 'shade') for text in ('ink', 'mute')]
    pairs += [(c, 'paper') for c in ('blue', 'orange', 'bench', 'pass', 'warn', 'block')]
    pairs += [('ink', f'{s}{k}') for s in 'pn' for k in (1, 2, 3, 4)] + [(s, s+'bg') for s in ('warn', 'block', 'hold', 'syn')]
    pairs += [('ink', s+'bg') for s in ('warn', 'block', 'hold', 'syn')] + [('blue', 'warnbg'), ('blue', 'blockbg')]
    def ratio(a, b):
        high,low = sorted((luminance(colour[a]), luminance(colour[b])), reverse=True)
        return (high+.05)/(low+.05)
    assert {p: round(ratio(*p), 2) for p in pairs if ratio(*p)<4.5}=={}


FLAGS = '--headless --no-sandbox --disable-gpu --disable-background-networking --no-first-run'.split()


@pytest.fixture(scope='session')
def browser():
    found = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome', 'chrome'))), None)
    if not found: pytest.skip('no Chromium on PATH: the pages were not looked at in a browser')
    api = pytest.importorskip('playwright.sync_api', reason='playwright is not installed: the pages were not looked at in a browser')
    with api.sync_playwright() as p:
        window = p.chromium.launch(executable_path=found, args=FLAGS)
        yield window
        window.close()


@pytest.fixture
def see(browser, tmp_path):
    "Open a page at a width; what it complains about is kept in `.said`"
    opened = []
    def see(name, width=1280, **how):
        file = tmp_path/f'{name}.html'
        file.write_text(PAGES[name](), encoding='utf-8')
        tab = browser.new_context(viewport=dict(width=width, height=900), **how).new_page()
        opened.append(tab)
        tab.said = []
        tab.on('console', lambda m: tab.said.append(m.text))
        tab.on('pageerror', lambda e: tab.said.append(str(e)))
        tab.on('dialog', lambda d: (tab.said.append('dialog'), d.dismiss()))
        tab.on('request', lambda r: None if r.url.startswith('file:') else tab.said.append(r.url))
        tab.goto(file.as_uri())
        return tab
    yield see
    for tab in opened: tab.context.close()


@pytest.mark.browser
@pytest.mark.parametrize('name', PAGES)
def test_no_complaint_and_no_sideways_scrolling(see, name):
    tab = see(name)
    for width in (360, 721, 900, 1161, 1280):
        tab.set_viewport_size(dict(width=width, height=900))
        wide = tab.evaluate('document.documentElement.scrollWidth')
        assert wide<=width or name.startswith('evil'), f'{name} is {wide} px wide at {width} px'
    assert tab.said==[]


@pytest.mark.browser
def test_reason_and_action_are_shown_at_every_width(see):
    tab = see('published')
    for width in (360, 721, 760, 900, 1000, 1161, 1280):
        tab.set_viewport_size(dict(width=width, height=900))
        for part in ('c-fund', 'c-act', 'c-tgt', 'c-shr', 'c-not', 'c-why'):
            boxes = [cell.bounding_box() for cell in tab.locator(f'.trades tbody .{part}').all()]
            least = 180 if part=='c-why' else 20
            assert all(b and b['width']>least and b['x']>=0 and b['x']+b['width']<=width for b in boxes), (width, part)


@pytest.mark.browser
def test_a_trade_takes_few_lines_on_a_phone(see):
    heights = [r.bounding_box()['height'] for r in see('published', 390).locator('.trades tbody tr').all()]
    assert max(heights)<=135


@pytest.mark.browser
def test_tables_are_sorted_by_keyboard(see):
    tab = see('published')
    funds = lambda: tab.locator('#why table[data-sort] tbody th .tk').all_inner_texts()
    before = funds()
    tab.locator('#why thead button', has_text='Score').focus()
    tab.keyboard.press('Enter')
    assert tab.locator('#why thead th[aria-sort=ascending]').inner_text().startswith('Score')
    assert funds()[:-1]==before[:-1][::-1] and funds()[-1]=='NEW', 'the fund without a score stays last'
    tab.keyboard.press('Enter')
    assert funds()==before


@pytest.mark.browser
def test_curves_are_read_by_arrow_keys(see):
    tab = see('backtest')
    plot = tab.locator('.plot[tabindex]').first
    plot.focus()
    tab.keyboard.press('Home')
    first = tab.locator('#read').inner_text()
    tab.keyboard.press('ArrowRight')
    assert first.startswith('2010-01-04: strategy 1.00×') and tab.locator('#read').inner_text().startswith('2010-01-08')


@pytest.mark.browser
def test_page_stands_without_scripts_and_in_the_dark(see):
    bright,dark = see('backtest', java_script_enabled=False),see('backtest', color_scheme='dark')
    assert bright.locator('h1').inner_text().startswith('6.6') and bright.locator('svg path').count()>20
    ground = 'getComputedStyle(document.body).backgroundColor'
    assert dark.evaluate(ground)=='rgb(20, 23, 26)'


@pytest.mark.browser
@pytest.mark.parametrize('name', ['first', 'backtest', 'told', 'quality'])
def test_page_prints(see, name):
    pdf = see(name, color_scheme='dark').pdf(prefer_css_page_size=True, print_background=True)
    pages = len(re.findall(rb'/Type\s*/Page\b', pdf))
    assert pdf.startswith(b'%PDF') and 1<pages<=8


@pytest.mark.browser
def test_a_rule_opens_to_its_funds_without_scripts(see):
    tab = see('quality', java_script_enabled=False)
    group = tab.locator('#measured details')
    group.locator('summary').focus()
    before = group.locator('tbody').is_visible()
    tab.keyboard.press('Enter')
    assert (before, group.locator('tbody').is_visible())==(False, True)
    tab.set_viewport_size(dict(width=360, height=900))
    box = group.locator('tbody tr').first.bounding_box()
    assert box['x']>=0 and box['x']+box['width']<=360
