"""What a scheduler calls: is a decision open, make it once, and what became of it."""
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from quantetf.core import ParameterError, find_settings
from quantetf.production import status as module
from quantetf.production.runtime import produce
from quantetf.production.status import due_of, last_closed, read_fills, status, status_words, write_index
from quantetf.runs import publish_run

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='module')
def settings(tmp_path_factory):
    place = tmp_path_factory.mktemp('schedule')
    return replace(find_settings(ROOT, environ={}), data=place/'data', runs=place/'runs')


@pytest.mark.parametrize('zone', ['UTC', 'Asia/Tokyo', 'America/Los_Angeles', 'Pacific/Kiritimati'])
@pytest.mark.parametrize('now,day', [('2024-03-08 20:59', '2024-03-07'), ('2024-03-08 21:00', '2024-03-08'),
    ('2024-03-11 20:00', '2024-03-11'), ('2024-07-03 17:00', '2024-07-03'),
    ('2024-07-04 23:59', '2024-07-03'), ('2025-01-01 12:00', '2024-12-31')])
def test_the_last_session_by_the_clock_of_the_exchange(now, day, zone):
    assert str(last_closed(now=pd.Timestamp(now, tz='UTC').tz_convert(zone)))==day


def test_a_decision_is_open_until_it_is_made(settings):
    there = replace(settings, runs=settings.runs.parent/'open')
    def due(day): return due_of('demo_momentum', there, day)
    assert [(str(o.last), str(o.next), o.open) for o in (due('2024-06-27'), due('2024-06-28'))]==[
        ('2024-05-31', '2024-06-28', True), ('2024-06-28', '2024-07-31', True)]
    inputs = dict(strategy='demo_momentum', as_of='2024-06-28')
    publish_run('production', '2024-06-28', 'demo_momentum', inputs, {'report.html':''}, {}, there, 'blocked')
    assert due('2024-06-28').open, 'a blocked packet settles nothing'
    produce('2024-06-28', settings=replace(there, data=settings.data))
    assert not due('2024-06-28').open and not due('2024-07-30').open and due('2024-07-31').open


def test_exit_codes(call, place):
    code = ['quantetf', 'due', '--strategy', 'demo_momentum', '--exit-code', '--today', '2024-07-04']
    first = call(*code)
    assert first.returncode==0 and first.stdout.split()[-1]=='open', first.stderr
    assert call('quantetf', 'produce', '2024-06-28').returncode==0
    assert call(*code).returncode==3
    assert call(*code[:-1], '2024-07-31').returncode==0
    shown = call('quantetf', 'status', 'demo_momentum', '--today', '2024-07-04')
    assert shown.returncode==0 and 'last packet   2024-06-28, published, 5 trades' in shown.stdout
    assert 'nothing; next 2024-07-31' in shown.stdout
    assert 'SYNTHETIC' in shown.stdout and 'without fills nobody can tell them apart' in shown.stdout
    page = Path(call('quantetf', 'index').stdout.strip()).read_text()
    (link,) = Path(place['QUANTETF_RUNS']).glob('production/*/*/report.html')
    assert link.relative_to(place['QUANTETF_RUNS']).as_posix() in page


def test_produce_if_due(call, place, tmp_path):
    "The demo market ends in 2025; the decision that is due by the clock of today needs data that are not there, and says so"
    done = call('quantetf', 'produce', '--if-due')
    assert done.returncode==1 and 'lies after the data' in done.stderr
    both = call('quantetf', 'produce', '2024-06-28', '--if-due')
    assert both.returncode==1 and 'finds the date itself' in both.stderr
    gone = call('quantetf', 'produce', '2024-06-28', '--dataset', 'two', '--ingest', f'csv={tmp_path/"no"}')
    assert gone.returncode==1 and gone.stderr.count('\n')==1
    assert call('quantetf', 'produce', '2024-06-28', '--ingest', 'csv').returncode==1


def test_produce_brings_the_data_up_to_date(call, place, tmp_path):
    place['QUANTETF_DATA'] = str(tmp_path/'data')
    folder = tmp_path/'prices'
    folder.mkdir()
    days = [d for d in pd.bdate_range('2024-01-02', '2024-06-28').astype(str) if d not in (
        '2024-01-15', '2024-02-19', '2024-03-29', '2024-05-27', '2024-06-19')]
    for k,ticker in enumerate(('AAA', 'BBB', 'CCC')):
        rows = ''.join(f'{d},{p},{p+1},{p-1},{p},{p},5000000,0\n' for i,d in enumerate(days) for p in [50+(k+1)*i/20])
        (folder/f'{ticker}.csv').write_text('Date,Open,High,Low,Close,AdjClose,Volume,Dividends\n'+rows)
    configs = tmp_path/'configs'/'strategies'
    configs.mkdir(parents=True)
    (configs/'small.yaml').write_text('universe: {kind: static, tickers: [AAA, BBB, CCC]}\n'
        'features: {mom: {kind: momentum, lookback: 63}}\nalpha: {kind: rank, feature: mom}\nportfolio: {kind: top_n_equal, n: 1}\n')
    place['QUANTETF_CONFIGS'] = str(tmp_path/'configs')
    done = call('quantetf', 'produce', '2024-06-28', '--strategy', 'small', '--dataset', 'three', '--ingest', f'csv={folder}')
    assert done.returncode in (0, 2), done.stderr
    (run,) = Path(place['QUANTETF_RUNS']).glob('production/2024-06-28/small-*/manifest.json')
    assert json.loads(run.read_text())['inputs']['dataset_name']=='three'


def test_status_without_packets(settings):
    s = status('demo_momentum', replace(settings, runs=settings.runs.parent/'nothing'), today='2024-07-04')
    assert s.last is None and s.track is None and 'nothing was executed yet' in status_words(s) and s.due.open


def test_a_track_from_holdings_begins_with_them(settings, tmp_path):
    "The engine starts from the shares of the first packet, and an account that follows the orders to the share is the engine's"
    there = replace(settings, root=tmp_path, runs=tmp_path/'runs')
    (tmp_path/'mine.csv').write_text('ticker,shares\nGLD1,200\nCASH,90000\n')
    packet = produce('2024-05-31', holdings='mine.csv', settings=there)
    assert packet.status=='published'
    plain = status('demo_momentum', there, today='2024-06-27').track
    fund = {o['ticker']:o['delta_shares'] for o in packet.data['rows'] if o['order']}
    closes = module.load_panel(module.open_snapshot('demo', there)).view('2024-06-03').lag('close')[0]
    ids = module.load_panel(module.open_snapshot('demo', there)).ids.tolist()
    lines = [f'2024-06-03,{k},{n},{closes[ids.index(k)]},{abs(n)*closes[ids.index(k)]*.001}' for k,n in fund.items()]
    (tmp_path/'fills.csv').write_text('date,ticker,shares,price,commission\n' + '\n'.join(lines) + '\n')
    mine = status('demo_momentum', there, fills=tmp_path/'fills.csv', today='2024-06-27').track
    assert mine.recommended==plain.recommended and abs(mine.cost_shortfall)<1e-6 and plain.actual is None
    assert abs(mine.shortfall-mine.signal_shortfall-mine.cost_shortfall)<1e-15
    assert write_index(there).is_file()


@pytest.mark.parametrize('line,words', [('2024-06-29,GLD1,1,50', 'Saturday'), ('2024-06-28,GLD2,1,50', 'GLD2'),
    ('2024-06-28,GLD1,x,50', 'shares'), ('2024-06-28,GLD1,1,0', 'above 0'), ('soon,GLD1,1,5', 'is not a date')])
def test_fills_that_cannot_be_used(line, words, settings, tmp_path):
    (tmp_path/'fills.csv').write_text(f'date,ticker,shares,price\n{line}\n')
    with pytest.raises(Exception, match=words) as e:
        read_fills(tmp_path/'fills.csv', module.load_panel(module.open_snapshot('demo', settings)))
    assert isinstance(e.value, ValueError)
    (tmp_path/'fills.csv').write_text('date;ticker\n')
    with pytest.raises(ParameterError, match='needs the columns'):
        read_fills(tmp_path/'fills.csv', module.load_panel(module.open_snapshot('demo', settings)))
