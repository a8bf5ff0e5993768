"""Downloads from servers on this machine that speak the vendors' formats, and fail in the ways that servers do"""
import errno
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import yaml
from vendor_servers import Reply, chart, no_chart, record, serving, tiingo, yahoo_at

import quantetf.data.raw as raw
from quantetf.core import ConfigError, DataError, Settings, build
from quantetf.data.ingest import ingest
from quantetf.data.online import Again, Halt, Line, Tiingo, Yahoo, arrivals, retry_after
from quantetf.data.raw import keep_raw, raw_time, read_raw

ROOT = Path(__file__).resolve().parent.parent
REAL = Path(os.environ.get('QUANTETF_REAL_DATA', ROOT.parent/'shared'/'data')).resolve()
KEY = 'k3y-0f-n0b0dy-1234567890'
DAYS = '2024-06-27', '2024-06-28'
PRICES = '/tiingo/daily/GLD/prices'
ROWS = [record(d, c) for d,c in zip(DAYS, (215.02, 215.01))]


@pytest.fixture
def place(tmp_path): return Settings(*[tmp_path/'data']*4)


@pytest.fixture(autouse=True)
def key(monkeypatch): monkeypatch.setenv('TIINGO_API_KEY', KEY)


@pytest.fixture
def wire():
    "Tiingo with SPY, GLD and TLT"
    answers = {}
    for ticker in 'SPY', 'GLD', 'TLT': answers |= tiingo(ticker, *ROWS)
    with serving(answers) as wire: yield wire


def client(wire, **options):
    return Tiingo(**dict(start='2024-06-27', backoff=.002, retries=2, timeout=5., workers=2, url=wire.url) | options)


def body(*rows): return json.dumps(rows).encode()


def spoilt(**changes): return Reply(body(ROWS[0], ROWS[1] | changes))


def everything(folder): return b'\n'.join(o.read_bytes() for o in folder.rglob('*') if o.is_file())


def staged(place, name='us3'): return sorted(o.name[65:] for o in (place.data/'raw'/name).glob('.partial-*/[0-9a-f]*'))


# ---- what comes

def test_tiingo_as_asked_and_kept(wire, place):
    vendor = client(wire)
    kept = keep_raw(vendor, 'SPY,GLD', 'us2', place)
    assert kept.parent==place.data/'raw'/'us2' and [o.name for o in kept.parent.iterdir()]==[kept.name]
    path,query,headers = next(o for o in wire.seen if o[0]==PRICES)
    assert query==dict(format='json', resampleFreq='daily', startDate='2024-06-27') and headers['Authorization']==f'Token {KEY}'
    manifest = json.loads((kept/'manifest.json').read_text())
    assert manifest['source']=='SPY,GLD' and manifest['request']==dict(kind='tiingo', start='2024-06-27', end='', url=wire.url)
    assert sorted(manifest['arrived'])==sorted(manifest['files'])==['GLD.json', 'GLD.meta.json', 'SPY.json', 'SPY.meta.json']
    assert abs(raw_time(kept).timestamp() - time.time())<60 and raw_time(kept).tzinfo
    data = vendor.parse(read_raw(kept))
    assert data.splits_complete and data.bars['GLD.json'].close.tolist()==[215.02, 215.01]
    about = data.instruments
    assert about.ticker.tolist()==['GLD', 'SPY'] and str(about.listed[0])[:10]=='2004-11-18' and about.delisted.isna().all()
    assert about.listed.dtype==about.delisted.dtype=='datetime64[us]' and about.delisting_value.dtype==float


def test_universe_file_as_source(wire, place, tmp_path):
    (tmp_path/'two.yaml').write_text('chosen_on: 2024-06-28\nhow: for a test\ntickers: [TLT, SPY]\n')
    kept = keep_raw(client(wire), str(tmp_path/'two.yaml'), 'us2', place)
    assert json.loads((kept/'manifest.json').read_text())['source']=='two.yaml'
    assert str(tmp_path).encode() not in everything(kept)


def test_update_asks_from_a_later_start(wire, place):
    vendor = build('ingestor', dict(kind='tiingo', start=str(np.datetime64('2024-06-28')), end='2024-06-28', url=wire.url))
    keep_raw(vendor, 'SPY', 'us1', place)
    assert wire.seen[0][1]['startDate']==wire.seen[0][1]['endDate']=='2024-06-28'
    assert build('ingestor', dict(kind='yahoo', start='2024-06-28')).request()['start']=='2024-06-28'


def test_closed_fund_has_nothing_new(wire, place):
    wire.answers |= tiingo('CLSD', start='2012-03-01', end='2016-05-20')
    vendor = client(wire)
    data = vendor.parse(read_raw(keep_raw(vendor, 'SPY,CLSD', 'us2', place)))
    assert list(data.bars)==['SPY.json'] and 'CLSD' in data.instruments.ticker.tolist() and '2016-05-20' in data.notes[0]


@pytest.mark.real_data
@pytest.mark.skipif(not (REAL/'tiingo_wire').is_dir(), reason=f'no real data in {REAL}')
def test_tiingo_recordings(place):
    "The recorded answers, byte for byte, to the recorded questions"
    def recorded(name): return yaml.safe_load((REAL/'tiingo_wire'/f'{name}.yaml').read_text())['interactions'][0]
    prices,meta = recorded('ticker_price_with_date'),recorded('ticker_metadata')
    answers = {'/tiingo/daily/GOOGL/prices':Reply(prices['response']['body']['string'].encode()),
        '/tiingo/daily/GOOGL':Reply(meta['response']['body']['string'].encode())}
    with serving(answers) as wire:
        vendor = Tiingo(start='2015-01-01', end='2015-01-05', url=wire.url)
        data = vendor.parse(read_raw(keep_raw(vendor, 'GOOGL', 'one', place)))
    asked = {o.split('=')[0]:o.split('=')[1] for o in prices['request']['uri'].split('?')[1].split('&')}
    assert wire.seen[0][:2]==('/tiingo/daily/GOOGL/prices', asked)
    got = data.bars['GOOGL.json']
    assert got.close.tolist()==[529.55, 519.46] and got.high.tolist()==[535.8, 527.9899] and got.volume.tolist()==[1327870, 2059119]
    assert got.session.astype(str).tolist()==['2015-01-02', '2015-01-05'] and data.instruments.name[0]=='Alphabet Inc.("Google") - Class A'


# ---- failures that pass

@pytest.mark.parametrize('failure', [Reply(b'busy', 500), Reply(b'busy', 503, {'Retry-After':'0'}), Reply(b'', 429, {'Retry-After':'0'}),
    Reply(b'', 429), Reply(body(*ROWS), cut=40), Reply(body(*ROWS)[:60], announced=False), Reply(b''), Reply(body(*ROWS), cut=0)],
    ids=['500', '503', '429 with Retry-After', '429', 'cut half way', 'JSON ends early', 'nothing', 'cut at once'])
def test_asked_again(wire, place, failure):
    wire.answers[PRICES] = [failure, failure, wire.answers[PRICES]]
    kept = keep_raw(client(wire), 'SPY,GLD', 'us2', place)
    assert wire.paths().count(PRICES)==3 and read_raw(kept)['GLD.json']==body(*ROWS)


def test_retry_after_is_honoured_by_all(wire, place):
    wire.answers[PRICES] = [Reply(b'', 429, {'Retry-After':'1'}), wire.answers[PRICES]]
    begun = time.monotonic()
    keep_raw(client(wire, workers=1), 'GLD,SPY', 'us2', place)
    assert 1<=time.monotonic()-begun<4
    line = Line(retries=0)
    def too_often(): raise Again('rate limit', after=60, limit=True)
    with pytest.raises(Halt): line.ask(too_often)
    assert line.quiet>time.monotonic() + 50
    line.stop.set() # Who waits for the vendor's permission still ends with the download
    with pytest.raises(Halt): line.ask(lambda: 'an answer')


def test_retry_after_too_long(wire, place):
    for headers in {'Retry-After':'3600'}, {'Retry-After':'Fri, 31 Dec 2099 23:59:59 GMT'}:
        wire.answers[PRICES] = Reply(b'hourly allocation', 429, headers)
        wire.seen.clear()
        begun = time.monotonic()
        with pytest.raises(DataError, match='GLD: rate limit .*hourly allocation.*asks to wait'):
            keep_raw(client(wire, workers=1), 'GLD,SPY', 'us2', place)
        assert time.monotonic()-begun<3 and wire.paths()==[PRICES]
    assert retry_after('-5') is None


# ---- failures that stay

STAY = {
    'too often for good': (Reply(b'', 429, {'Retry-After':'0'}), ['rate limit', '3 attempts', 'run again later']),
    '5xx for good': (Reply(b'<html>Bad gateway</html>', 502), ['HTTP 502, "Bad gateway" (3 attempts)']),
    'cut for good': (Reply(body(*ROWS), cut=40), ['cut', '3 attempts']),
    'ends early for good': (Reply(body(*ROWS)[:60], announced=False), ['GLD.json breaks off after 60 bytes (3 attempts)']),
    'a page with status 200': (Reply(b'<!DOCTYPE html><html><head><title>x</title></head><p>Planned <b>maintenance</b>'),
        ['GLD.json is a web page and no data: "Planned maintenance"']),
    'unknown': (Reply(b'{"detail":"Not found."}', 404), ['unknown ticker (HTTP 404, "{"detail":"Not found."}")']),
    'bad request': (Reply(b'No such column', 400), ['HTTP 400, "No such column"']),
    'moved': (Reply(b'', 302, {'Location':'http://127.0.0.1:1/'}), ['HTTP 302']),
    'empty': (Reply(b'[]'), ['no prices since 2024-06-27', '2004-11-18 to 2024-06-28']),
    'not JSON': (Reply(b'date,close\n'), ['GLD.json is not JSON', 'date,close']),
    'words as JSON': (Reply(b'{"detail":"Over your allocation"}'), ['a list of records was expected', 'Over your allocation']),
    'not records': (Reply(b'[[1]]'), ['GLD.json, row 1: a record was expected, not list']),
    'a column less': (Reply(body(*ROWS).replace(b'divCash', b'dividend')), ['GLD.json, row 1: divCash is missing']),
    'text for a number': (spoilt(close='215.01'), ["GLD.json, row 2, column close: '215.01' is not a number"]),
    'true for a number': (spoilt(volume=True), ['row 2, column volume: True is not a number']),
    'no close': (spoilt(close=None), ['row 2, column close: None is not a number']),
    'NaN': (Reply(b'[{"close":NaN}]'), ['GLD.json is not JSON']),
    'infinite': (Reply(body(*ROWS).replace(b'"close": 215.02', b'"close": 1e999')), ['row 1, column close: inf is not a finite number']),
    'beyond': (Reply(body(*ROWS).replace(b'"volume": 1000', b'"volume": 1' + 400*b'0')), ['row 1, column volume: ', 'is beyond any']),
    'below zero': (spoilt(low=-1), ['row 2, column low: -1 is below zero']),
    'split of zero': (spoilt(splitFactor=0), ['row 2, column splitFactor: 0 is no split']),
    'time of day': (spoilt(date='2024-06-28T16:00:00.000Z'), ['row 2, column date']),
    'another zone': (spoilt(date='2024-06-28T00:00:00.000-05:00'), ['row 2, column date']),
    'no day': (spoilt(date='2024-06-31T00:00:00.000Z'), ["row 2, column date: '2024-06-31T00:00:00.000Z' is not a day"]),
    'repeats the key': (Reply(json.dumps([dict(seen=KEY)]).encode()), ['the answer repeats the key']),
    'page with the key': (Reply(f'<p>Wrong: {KEY}</p>'.encode(), 500), ['"Wrong: ***" (3 attempts)']),
}


@pytest.mark.parametrize('case', STAY)
def test_named_and_the_rest_kept(wire, place, case, caplog, capfd):
    "One ticker fails: it is named with the reason; the other is not lost, and not asked for again"
    caplog.set_level(logging.DEBUG)
    reply,said = STAY[case]
    good,wire.answers[PRICES] = wire.answers[PRICES],reply
    with pytest.raises(DataError) as e: keep_raw(client(wire, workers=1), 'SPY,GLD', 'us3', place)
    for text in '1 of 2 tickers did not arrive. GLD: ', *said: assert text in str(e.value)
    assert staged(place)==['SPY.json', 'SPY.meta.json']
    assert [o.name for o in (place.data/'raw'/'us3').iterdir() if not o.name.startswith('.partial-')]==[]
    wire.answers[PRICES] = good
    wire.seen.clear()
    kept = keep_raw(client(wire), 'SPY,GLD', 'us3', place)
    assert sorted(wire.paths())==['/tiingo/daily/GLD', PRICES] and read_raw(kept)['GLD.json']==good.body
    for shown in str(e.value), caplog.text, *capfd.readouterr(), everything(place.data).decode(): assert KEY not in shown


@pytest.mark.parametrize('change, said', [(dict(ticker='GLDM'), "is about 'GLDM', and GLD was asked for"),
    (dict(name=7), '7 is not a text'),
    (dict(startDate='2004'), "column startDate: '2004' is not a date"), (None, 'one record was expected')])
def test_wrong_facts(wire, place, change, said):
    meta = json.loads(wire.answers['/tiingo/daily/GLD'].body)
    wire.answers['/tiingo/daily/GLD'] = Reply(json.dumps([] if change is None else meta | change).encode())
    with pytest.raises(DataError) as e: keep_raw(client(wire), 'GLD', 'us1', place)
    assert said in str(e.value)


def test_slow_server(wire, place):
    hold = Event()
    wire.answers[PRICES] = Reply(body(*ROWS), stall=hold)
    with pytest.raises(DataError, match=r'GLD: no answer within 0.2 s \(2 attempts\)'):
        keep_raw(client(wire, timeout=.2, retries=1), 'GLD', 'us1', place)
    hold.set()


def test_nobody_listens(place):
    vendor = Tiingo(url='http://127.0.0.1:9', backoff=.002, retries=1)
    with pytest.raises(DataError, match=r'SPY, GLD, TLT: the connection failed or was cut .*\(2 attempts\)'):
        keep_raw(vendor, 'SPY,GLD,TLT', 'us3', place)


def test_vendor_is_down(wire, place):
    "Three tickers in a row in vain, and nobody waits for a thousand more; all are named"
    tickers = [f'T{i}' for i in range(12)]
    wire.answers |= {f'/tiingo/daily/{o}/prices':Reply(b'', 500) for o in tickers}
    with pytest.raises(DataError, match='12 of 12 tickers did not arrive') as e:
        keep_raw(client(wire, workers=1), ','.join(tickers), 'us', place)
    assert 9<=len(wire.seen)<=12 and str(e.value).endswith('T4, T5, T6, T7, T8, T9, T10, T11: not asked for after that')


def test_refused_key_ends_it(wire, place):
    for status in 401, 403:
        wire.answers[PRICES] = Reply(f'{{"detail":"Bad token {KEY}"}}'.encode(), status)
        wire.seen.clear()
        with pytest.raises(DataError, match='refuses the key .*Bad token .*TIINGO_API_KEY') as e:
            keep_raw(client(wire, workers=1), 'GLD,SPY,TLT', 'us3', place)
        assert KEY not in str(e.value) and wire.paths()==[PRICES] and 'SPY, TLT: not asked' in str(e.value)


@pytest.mark.parametrize('value', [None, '', ' ', 'two words', 'k\ny', 'schlüssel'])
def test_no_key_no_request(wire, place, monkeypatch, value):
    monkeypatch.delenv('TIINGO_API_KEY')
    if value is not None: monkeypatch.setenv('TIINGO_API_KEY', value)
    with pytest.raises(ConfigError, match='environment variable TIINGO_API_KEY') as e: keep_raw(client(wire), 'SPY', 'us1', place)
    assert wire.seen==[] and (not (value or '').strip() or value not in str(e.value))


@pytest.mark.parametrize('url', ['http://api.tiingo.com', 'https://me:secret@api.tiingo.com', 'https://api.tiingo.com/?token=secret', 'ftp://x'])
def test_url_is_a_host(url):
    with pytest.raises(ConfigError, match='https://HOST') as e: Tiingo(url=url)
    assert 'secret' not in str(e.value)


@pytest.mark.parametrize('source', ['', 'SPY,,GLD', '../SPY', 'SPY,spy', 'SPY/GLD', 'nowhere.yaml'])
def test_sources_refused(wire, place, source):
    with pytest.raises((DataError, ConfigError)): keep_raw(client(wire), source, 'us1', place)
    assert wire.seen==[]


def test_errors_of_ours_are_not_dressed_up():
    "A mistake in the code is no vendor's failure"
    def work(ticker): raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError): list(arrivals('x', ['SPY', 'GLD'], work, Line()))


# ---- processes

DOWNLOAD = '''
import sys
from pathlib import Path
from quantetf.core import Settings
from quantetf.data.online import Tiingo
from quantetf.data.raw import keep_raw
url,data,source = sys.argv[1:]
print('up', flush=True)
print(keep_raw(Tiingo(start='2024-06-27', workers=1, url=url), source, 'us3', Settings(*[Path(data)]*4)).name)
'''


def start(wire, place, source='SPY,GLD,TLT', **kwargs):
    command = [sys.executable, '-c', DOWNLOAD, wire.url, str(place.data), source]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}, **kwargs)


def until(true, seconds=20):
    begun = time.monotonic()
    while not true():
        assert time.monotonic()-begun<seconds, 'this did not happen'
        time.sleep(.01)


@pytest.mark.parametrize('how', [signal.SIGKILL, signal.SIGINT])
def test_killed_while_the_server_stalls(wire, place, how):
    hold = Event()
    good,wire.answers[PRICES] = wire.answers[PRICES],Reply(body(*ROWS), stall=hold)
    child = start(wire, place)
    until(lambda: PRICES in wire.paths() and len(staged(place))==2)
    begun = time.monotonic()
    child.send_signal(how)
    said = child.communicate(timeout=20)
    assert child.returncode!=0 and time.monotonic()-begun<5 and KEY not in ''.join(said)
    hold.set()
    assert staged(place)==['SPY.json', 'SPY.meta.json'] and not list((place.data/'raw'/'us3').glob('*/manifest.json'))
    wire.answers[PRICES] = good
    wire.seen.clear()
    kept = keep_raw(client(wire), 'SPY,GLD,TLT', 'us3', place)
    assert not any('SPY' in o for o in wire.paths()) and len(read_raw(kept))==6
    assert [o.name for o in kept.parent.iterdir()]==[kept.name]


def test_two_processes_at_once(wire, place):
    "The second waits, asks for nothing, and finds the same"
    hold = Event()
    wire.answers[PRICES] = Reply(body(*ROWS), stall=hold)
    children = [start(wire, place) for _ in range(2)]
    until(lambda: PRICES in wire.paths())
    for o in children: assert o.stdout.readline()=='up\n'
    time.sleep(.5)
    hold.set()
    said = [o.communicate(timeout=30) for o in children]
    assert [o.returncode for o in children]==[0, 0], said
    assert said[0][0]==said[1][0]
    read_raw(place.data/'raw'/'us3'/said[0][0].strip())


def test_two_processes_when_one_is_late(wire, place):
    hold = Event()
    wire.answers[PRICES] = Reply(body(*ROWS), stall=hold)
    first = start(wire, place)
    until(lambda: PRICES in wire.paths())
    second = start(wire, place, 'GLD')
    assert 'waiting for it' in second.stderr.readline()
    hold.set()
    assert first.wait(30)==second.wait(30)==0
    for o in first,second: o.communicate()
    assert len(list((place.data/'raw'/'us3').glob('*/manifest.json')))==2


# ---- the disk

class Folder:
    "A vendor without a network"
    def __init__(self, **files): self.files = files
    def request(self): return dict(kind='folder')
    def fetch(self, source): yield from self.files.items()


@pytest.mark.parametrize('number, hint', [(errno.ENOSPC, 'make room'), (errno.EACCES, 'who may write'), (errno.EROFS, 'read-only')])
@pytest.mark.parametrize('where', ['staging', 'publishing'])
def test_disk_refuses(wire, place, monkeypatch, number, hint, where):
    def refuse(*args, **kwargs): raise OSError(number, os.strerror(number))
    with monkeypatch.context() as m:
        if where=='staging': m.setattr(raw, 'write_atomic', refuse)
        else: m.setattr(raw, 'publishing', refuse)
        with pytest.raises(DataError, match=f'cannot write the raw files of us1 .*{hint}'): keep_raw(client(wire), 'SPY', 'us1', place)
    wire.seen.clear()
    kept = keep_raw(client(wire), 'SPY', 'us1', place)
    assert len(read_raw(kept))==2 and len(wire.seen)==(2 if where=='staging' else 0)


def test_file_too_large_for_the_disk(place):
    "A real failure in the middle of a file: the limit of the operating system"
    resource = pytest.importorskip('resource')
    code = f'''if True:
        import sys; sys.path.insert(0, {str(ROOT/'tests')!r})
        from test_online import Folder, DataError, Settings, keep_raw; from pathlib import Path
        import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try: keep_raw(Folder(small=b'x', large=b'x'*2000), 'a', 'us1', Settings(*[Path({str(place.data)!r})]*4))
        except DataError as e: print(e)'''
    assert resource
    said = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60)
    assert 'cannot write the raw files of us1' in said.stdout, said
    assert not list((place.data/'raw').rglob('manifest.json'))
    assert len(read_raw(keep_raw(Folder(small=b'x', large=b'x'*2000), 'a', 'us1', place)))==2


@pytest.mark.skipif(not hasattr(os, 'geteuid') or os.geteuid()==0, reason='root may write everywhere')
def test_no_permission(place):
    (place.data/'raw').mkdir(parents=True)
    (place.data/'raw').chmod(0o555)
    with pytest.raises(DataError, match='who may write there'): keep_raw(Folder(a=b'x'), 'a', 'us1', place)
    (place.data/'raw').chmod(0o755)


def test_names_from_a_vendor(place):
    for bad in '../evil', '/etc/evil', 'manifest.json':
        with pytest.raises(DataError): keep_raw(Folder(**{bad:b'x'}), 'a', 'us1', place)
    kept = keep_raw(Folder(**{'daily/spy.zip':b'x', 'spy.zip':b'y'}), 'https://me:secret@example.com/x?token=secret', 'us1', place)
    assert read_raw(kept)=={'daily/spy.zip':b'x', 'spy.zip':b'y'} and b'secret' not in everything(kept)


# ---- Yahoo

EEM = [('2008-07-22', 43.9, 44.2, 43.2, 43.5, 36.1, 58_000_000), ('2008-07-23', 44.9, 45.3, 44.5, 44.8, 37.4, 61_000_000),
    ('2008-07-24', 44.7, 44.8, 43.1, 43.2, 36.0, 71_000_000)]


@pytest.fixture
def yahoo(tmp_path):
    pytest.importorskip('yfinance', reason='yfinance is not installed')
    eem = chart('EEM', EEM, [('2008-07-23', .25)], [('2008-07-24', 3, 1)])
    answers = {'/v1/test/getcrumb':Reply(b'crumb'), '/v8/finance/chart/EEM':Reply(eem)}
    with serving(answers) as wire, yahoo_at(wire, tmp_path/'cache'): yield wire


def yahoo_client(**options): return Yahoo(**dict(start='2008-07-01', backoff=.002, pace=0., retries=2, timeout=5.) | options)


def test_yahoo_with_its_actions(yahoo, place):
    gains = chart('DODFX', EEM, [('2008-07-23', 1.5)], gains=[('2008-07-24', .5)])
    yahoo.answers['/v8/finance/chart/DODFX'] = Reply(gains)
    vendor = yahoo_client()
    kept = keep_raw(vendor, 'EEM,DODFX', 'y', place)
    data = vendor.parse(read_raw(kept))
    eem,fund = data.bars['EEM.csv'],data.bars['DODFX.csv']
    assert eem.session.astype(str).tolist()==[o[0] for o in EEM] and eem.claim=='split_adjusted' and data.splits_complete
    for i,k in enumerate(['open', 'high', 'low', 'close', 'adjclose', 'volume'], 1): assert getattr(eem, k).tolist()==[o[i] for o in EEM]
    assert (eem.dividend.tolist(), eem.split.tolist(), eem.capital_gain.tolist())==([0, .25, 0], [1, 1, 3], [0, 0, 0])
    assert fund.capital_gain.tolist()==[0, 0, .5] and data.instruments.name.tolist()==['DODFX Trust', 'EEM Trust']
    asked = [o[1] for o in yahoo.seen if 'period1' in o[1]]
    assert len(asked)==2 and all(o['events']=='div,splits,capitalGains' and o['interval']=='1d' for o in asked)
    assert all(abs(int(o['period2']) - time.time())<60 for o in asked) # To the present, so that no split is missing


@pytest.mark.real_data
@pytest.mark.skipif(not (REAL/'yahoo_v8_json').is_dir(), reason=f'no real data in {REAL}')
def test_yahoo_recording(yahoo, place):
    "Every digit of a recorded answer survives yfinance, the file and the reader"
    recorded = (REAL/'yahoo_v8_json'/'SPY_5d_20260220.json').read_bytes()
    yahoo.answers['/v8/finance/chart/SPY'] = Reply(recorded)
    vendor = yahoo_client(start='2026-02-01')
    got = vendor.parse(read_raw(keep_raw(vendor, 'SPY', 'y', place))).bars['SPY.csv']
    sent = json.loads(recorded)['chart']['result'][0]
    for k,v in sent['indicators']['quote'][0].items(): assert getattr(got, k).tolist()==v
    assert got.adjclose.tolist()==sent['indicators']['adjclose'][0]['adjclose'] and str(got.session[-1])=='2026-02-20'


def test_yahoo_rows_without_prices_stay_in_raw(yahoo, place):
    empty = [EEM[0], ('2008-07-23', None, None, None, None, None, None), EEM[2]]
    yahoo.answers['/v8/finance/chart/EEM'] = Reply(chart('EEM', empty))
    vendor = yahoo_client()
    got = vendor.parse(read_raw(keep_raw(vendor, 'EEM', 'y', place))).bars['EEM.csv']
    assert np.isnan(got.close).tolist()==[False, True, False]


YAHOO = {
    'unknown': (Reply(no_chart('Not Found', 'No data found, symbol may be delisted'), 404), ['unknown ticker, or delisted'], None),
    'nothing since': (Reply(no_chart('Bad Request', "Data doesn't exist for startDate"), 400), ["doesn't exist"], 'range'),
    'empty': (Reply(json.dumps(dict(chart=dict(result=[], error=None))).encode()), ['no prices'], 'range'),
    'too often': (Reply(b'Too Many Requests', 429), ['rate limit (3 attempts); run again later'], None),
    'page with status 200': (Reply(b'<html><p>Sorry, <b>not</b> today</html>'),
        ['a web page and no data: "Sorry, not today" (3 attempts)'], None),
    '5xx': (Reply(b'<html>Bad gateway</html>', 502), ['"Bad gateway" (3 attempts)'], None),
    '5xx in words': (Reply(no_chart('Internal', 'Upstream is busy'), 500), ['"Upstream is busy" (3 attempts)'], 'range'),
    'cut': (Reply(chart('ZZZ', EEM), cut=200), ['the connection failed or was cut', '3 attempts'], None),
    'ends early': (Reply(chart('ZZZ', EEM)[:200], announced=False), ['breaks off or is not JSON', '3 attempts'], None),
    'another form': (Reply(chart('ZZZ', EEM).replace(b'"timestamp"', b'"stamps"')), ['not in the form that yfinance knows'], 'range'),
    'another fund': (Reply(chart('ZZZQ', EEM)), ["is about 'ZZZQ', and ZZZ was asked for"], None),
    'pence': (Reply(chart('ZZZ', EEM, currency='GBp')), ['ZZZ is quoted in GBp, not in USD'], None),
    'below zero': (Reply(chart('ZZZ', [('2008-07-22', 43.9, 44.2, -1., 43.5, 36.1, 5)])),
        ['ZZZ.csv, row 2, column Low: -1.0 is below zero'], None),
}


@pytest.mark.parametrize('case', YAHOO)
def test_yahoo_named_and_the_rest_kept(yahoo, place, case):
    reply,said,only_after = YAHOO[case]
    first = Reply(chart('ZZZ', EEM))
    yahoo.answers['/v8/finance/chart/ZZZ'] = (lambda query: first if only_after in query else reply) if only_after else reply
    with pytest.raises(DataError) as e: keep_raw(yahoo_client(), 'EEM,ZZZ', 'us3', place)
    for text in 'yahoo: 1 of 2 tickers did not arrive. ZZZ: ', *said: assert text in str(e.value)
    assert staged(place)==['EEM.csv', 'EEM.meta.json']
    yahoo.answers['/v8/finance/chart/ZZZ'] = first
    yahoo.seen.clear()
    kept = keep_raw(yahoo_client(), 'EEM,ZZZ', 'us3', place)
    assert len(read_raw(kept))==4 and not any('EEM' in o for o in yahoo.paths())


def test_yahoo_asked_again(yahoo, place):
    "A failure is not repeated from yfinance's cache"
    good = yahoo.answers['/v8/finance/chart/EEM']
    yahoo.answers['/v8/finance/chart/EEM'] = [Reply(b'<html>busy</html>', 503)]*4 + [good]
    assert len(read_raw(keep_raw(yahoo_client(), 'EEM', 'y', place)))==2


def test_yfinance_is_left_as_it_was(yahoo, place):
    import yfinance as yf
    keep_raw(yahoo_client(), 'EEM', 'y', place)
    assert yf.config.debug.hide_exceptions is True


def test_yahoo_without_yfinance(place, monkeypatch):
    monkeypatch.setitem(sys.modules, 'yfinance', None)
    with pytest.raises(ConfigError, match=r'pip install "quantetf\[yahoo\]"'): keep_raw(yahoo_client(), 'EEM', 'y', place)


# ---- as far as a snapshot

def test_ingest_and_update_from_tiingo(wire, place):
    "A download, and the next day a shorter one that adds a session"
    made = ingest('tiingo', 'SPY,GLD', 'us2', place, url=wire.url)
    assert str(made.last)=='2024-06-28' and made.tables.bars.close.tolist()==2*[215.02, 215.01] and KEY not in str(made.record)
    wire.answers |= tiingo('SPY', *ROWS, record('2024-07-01', 216.)) | tiingo('GLD', *ROWS, record('2024-07-01', 217.))
    wire.seen.clear()
    later = ingest('tiingo', 'SPY,GLD', 'us2', place, update=True, url=wire.url)
    assert str(later.last)=='2024-07-01' and len(later.tables.bars)==6
    assert min(o[1]['startDate'] for o in wire.seen if 'startDate' in o[1])>'2024-01-01'
    assert KEY.encode() not in everything(place.data)


def test_ingest_from_yahoo(yahoo, place):
    "The split in the answer puts the closes before it back to what was traded"
    made = ingest('yahoo', 'EEM', 'eem', place)
    assert np.allclose(made.tables.bars.close, [3*43.5, 3*44.8, 43.2], rtol=1e-12)


# ---- a vendor of one's own, and what an import costs

def test_vendor_from_an_entry_point(place, tmp_path, monkeypatch):
    "A package with one class and one entry point is enough"
    site = tmp_path/'site'
    (site/'my_vendor-1.0.dist-info').mkdir(parents=True)
    (site/'my_vendor-1.0.dist-info'/'METADATA').write_text('Metadata-Version: 2.1\nName: my-vendor\nVersion: 1.0\n')
    (site/'my_vendor-1.0.dist-info'/'entry_points.txt').write_text('[quantetf.components]\ningestor.cellar = my_vendor:Cellar\n')
    (site/'my_vendor.py').write_text('''
from dataclasses import dataclass
from quantetf.data.vendors import Rows, VendorData

@dataclass(frozen=True)
class Cellar:
    shelf:int=1
    def request(self): return dict(kind='cellar', shelf=self.shelf)
    def fetch(self, source): yield f'{source}.txt',b'2024-06-27 546.37'
    def parse(self, files):
        day,close = files['SPY.txt'].decode().split()
        return VendorData(bars={'SPY.txt':Rows.make('SPY', 'SPY.txt', [1], [day], claim='as_traded', close=[float(close)])})
''')
    monkeypatch.syspath_prepend(str(site))
    vendor = build('ingestor', dict(kind='cellar', shelf=2))
    kept = keep_raw(vendor, 'SPY', 'mine', place)
    assert vendor.parse(read_raw(kept)).bars['SPY.txt'].close.tolist()==[546.37]
    with pytest.raises(ConfigError, match='cellar, csv, tiingo, yahoo'): build('ingestor', dict(kind='attic'))


def test_imports_are_light():
    code = '''if True:
        import sys, quantetf.cli, quantetf.data.online, quantetf.data.raw
        from quantetf.core import build; build('ingestor', dict(kind='yahoo')); build('ingestor', dict(kind='tiingo'))
        print([o for o in ('httpx', 'tenacity', 'yfinance', 'curl_cffi', 'tqdm') if o in sys.modules])'''
    said = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60)
    assert said.stdout=='[]\n', said
