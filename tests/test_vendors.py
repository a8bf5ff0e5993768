"""Vendor files at the parser: what must be refused and with which words, both readers against each other, and the real files"""
import io
import json
import os
import time
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as rules
from hypothesis import strategies as st

from quantetf.core import ConfigError, DataError
from quantetf.data.cells import Column, exact_columns, fast_columns, read_head
from quantetf.data.files import CsvFolder, read_mapping, read_prices, ticker_of

ROOT = Path(__file__).resolve().parent.parent
REAL = Path(os.environ.get('QUANTETF_REAL_DATA', ROOT.parent/'shared'/'data')).resolve()
GOLDEN = Path(os.environ.get('QUANTETF_GOLDEN', ROOT.parent/'shared'/'golden')).resolve()
HEAD = 'Date,Open,High,Low,Close,AdjClose,Volume,Dividends'
ROWS = ['2024-06-26,545,547,544,545.5,543.75,1000,0', '2024-06-27,546,547,545,546.4,544.65,1000,0',
    '2024-06-28,547,550,543,544.2,544.2,1000,1.75']
SPY = '\n'.join([HEAD, *ROWS]) + '\n'
THREE = 'Price,Price,Close,High,Low,Open,Volume\n'
HISTORY = 'Date,Open,High,Low,Close,Adj Close,Volume,Dividends,Stock Splits\n'


def row(i, text): return '\n'.join([HEAD, *ROWS[:i], text, *ROWS[i+1:]]) + '\n'
def raw(text): return text if isinstance(text, bytes) else text.encode()
def parse(files, **options): return CsvFolder(**options).parse({k:raw(v) for k,v in files.items()})


def refused(parts, files, error=DataError, **options):
    with pytest.raises(error) as e: parse(files, **options)
    for part in parts: assert part in str(e.value), str(e.value)
    assert len(str(e.value))<1500


# ---- price files

OFFSETS = ['2024-06-27 00:00:00-04:00,1,1,1,1,1,1,0,0', '2024-06-28 00:00:00{},1,1,1,1,1,1,0,0']
BAD_FILES = {
    'empty': ('', ['SPY.csv is empty']),
    'blank': ('\n \n\n', ['SPY.csv is empty']),
    'only a head': (HEAD + '\n', ['SPY.csv', 'no rows']),
    'missing column': (SPY.replace('AdjClose', 'Adj'), ['SPY.csv', 'missing: AdjClose', 'unknown: Adj']),
    'no dividends column': ('\n'.join(o.rsplit(',', 1)[0] for o in SPY.splitlines()), ['SPY.csv', 'missing: Dividends']),
    'a column twice': (SPY.replace('AdjClose', 'Close'), ['SPY.csv', 'unknown layout']),
    'semicolons': (SPY.replace(',', ';'), ['SPY.csv', 'unknown layout', "delimiter seems to be ';'"]),
    'tabs': (SPY.replace(',', '\t'), ['SPY.csv', 'unknown layout', "delimiter seems to be '\\t'"]),
    'unparsable date': (row(1, '27 June,546,547,545,546.4,544.65,1000,0'), ['SPY.csv, row 3, column Date', "'27 June'"]),
    'no date': (row(1, ',546,547,545,546.4,544.65,1000,0'), ['SPY.csv, row 3, column Date']),
    'impossible date': (row(1, '2024-06-31,546,547,545,546.4,544.65,1000,0'), ['SPY.csv, row 3, column Date', 'not a day']),
    'two date formats': (row(1, '2024-06-27 00:00:00,546,547,545,546.4,544.65,1000,0'), ['SPY.csv, row 3, column Date', 'two notations']),
    'two separators': ('\n'.join([HISTORY[:-1], '2024-06-27 00:00:00,1,1,1,1,1,1,0,0', '2024-06-28T00:00:00,1,1,1,1,1,1,0,0']),
        ['SPY.csv, row 3, column Date', 'two notations']),
    'day first': (row(0, '26/06/2024,546,547,545,546.4,544.65,1000,0'), ['SPY.csv, row 2, column Date']),
    'intraday': (row(0, '2024-06-26 10:30:00,546,547,545,546.4,544.65,1000,0'), ['SPY.csv, row 2, column Date']),
    'an offset of somewhere else': (HISTORY + '\n'.join(OFFSETS).format('-07:00'), ['SPY.csv, row 3, column Date', 'New_York', '-04:00']),
    'New York and UTC': (HISTORY + '\n'.join(OFFSETS).format('+00:00'), ['SPY.csv, row 3, column Date', 'New_York']),
    'with and without offset': (HISTORY + '\n'.join(OFFSETS).format(''), ['SPY.csv, row 3, column Date', 'two notations']),
    'standard time in summer': (HISTORY + OFFSETS[1].format('-05:00'), ['SPY.csv, row 2, column Date', '-04:00']),
    'decimal comma': (row(1, '2024-06-27,546,547,545,546,4,544.65,1000,0'), ['SPY.csv, row 3', '9 cells']),
    'quoted decimal comma': (row(1, '2024-06-27,546,547,545,"546,4",544.65,1000,0'), ['SPY.csv, row 3, column Close', "'546,4'"]),
    'thousands': (row(1, '2024-06-27,546,547,545,1_546.4,544.65,1000,0'), ['SPY.csv, row 3, column Close']),
    'a currency': (row(1, '2024-06-27,546,547,545,$546.4,544.65,1000,0'), ['SPY.csv, row 3, column Close', "'$546.4'"]),
    'NaN close': (row(1, '2024-06-27,546,547,545,NaN,544.65,1000,0'), ['SPY.csv, row 3, column Close', 'empty']),
    'NaN adjusted close': (row(1, '2024-06-27,546,547,545,546.4,,1000,0'), ['SPY.csv, row 3, column AdjClose']),
    'no dividend cell': (row(1, '2024-06-27,546,547,545,546.4,544.65,1000,'), ['SPY.csv, row 3, column Dividends']),
    'no split cell': (HISTORY + '2024-06-27,1,1,1,1,1,1,0,', ['SPY.csv, row 2, column Stock Splits']),
    'infinite': (row(1, '2024-06-27,546,inf,545,546.4,544.65,1000,0'), ['SPY.csv, row 3, column High', 'finite']),
    'minus infinity': (row(1, '2024-06-27,546,547,-Infinity,546.4,544.65,1000,0'), ['SPY.csv, row 3, column Low', 'finite']),
    'overflow': (row(1, '2024-06-27,546,1e999,545,546.4,544.65,1000,0'), ['SPY.csv, row 3, column High']),
    'negative close': (row(1, '2024-06-27,546,547,545,-546.4,544.65,1000,0'), ['SPY.csv, row 3, column Close', 'below zero']),
    'negative volume': (row(1, '2024-06-27,546,547,545,546.4,544.65,-1,0'), ['SPY.csv, row 3, column Volume', 'below zero']),
    'negative dividend': (row(1, '2024-06-27,546,547,545,546.4,544.65,1,-2'), ['SPY.csv, row 3, column Dividends']),
    'short row': (row(1, '2024-06-27,546,547'), ['SPY.csv, row 3', '3 cells']),
    'cut off in a row': (SPY[:-20], ['SPY.csv, row 4', 'cells']),
    'cut off in a quote': (SPY + '"2024-07-01', ['SPY.csv, row 5', 'not CSV']),
    'UTF-16': (SPY.encode('utf-16'), ['SPY.csv', 'UTF-16', 'UTF-8']),
    'UTF-16 without a mark': (SPY.encode('utf-16-le'), ['SPY.csv', 'UTF-8']),
    'Latin-1': (SPY.encode() + 'Größe'.encode('latin-1'), ['SPY.csv', 'not UTF-8']),
    'a page': ('<html><body>Too many requests</body></html>', ['SPY.csv', 'unknown layout', 'HTML page']),
    'a message': ('{"Information": "rate limit of 25 requests a day"}', ['SPY.csv', 'unknown layout', 'JSON']),
    'Parquet by another name': (b'PAR1' + bytes(20), ['SPY.csv', 'Parquet']),
    'a spreadsheet': (b'PK\x03\x04' + bytes(20), ['SPY.csv', 'Excel']),
    'three rows, wrong ticker': (THREE + 'Ticker'+6*',QQQ'+'\nDate,,,,,,\n2024-06-26,1,1,1,1,1,1\n', ['SPY.csv, row 2', 'QQQ']),
    'three rows, two tickers': (THREE + 'Ticker'+5*',SPY'+',QQQ\nDate,,,,,,\n2024-06-26,1,1,1,1,1,1\n', ['SPY.csv, row 2', 'QQQ, SPY']),
    'three rows, cut head': (THREE + '2024-06-26,1,1,1,1,1,1\n', ['SPY.csv', 'unknown layout']),
    'three rows, nothing else': (THREE + 'Ticker'+6*',SPY'+'\nDate,,,,,,\n', ['SPY.csv', 'no rows']),
}


@pytest.mark.parametrize('case', BAD_FILES)
def test_a_bad_file_is_refused_with_its_place(case):
    text,parts = BAD_FILES[case]
    refused(parts, {'SPY.csv':text})


@pytest.mark.parametrize('text', ['\ufeff' + SPY, SPY.replace('\n', '\r\n'), SPY.replace('\n', '\r'), SPY.replace('\n', '\n\n'),
    SPY.rstrip('\n'),
    SPY.replace('547', '"547"'), SPY.replace(',', ' , '), '\n' + SPY])
def test_harmless_differences_are_read(text):
    "A byte order mark, three kinds of line ends, blank lines, quotes, blanks around cells"
    got,want = (parse({'SPY.csv':o}).bars['SPY.csv'] for o in (text, SPY))
    for k in 'open', 'close', 'adjclose', 'volume', 'dividend', 'session': np.testing.assert_array_equal(getattr(got, k), getattr(want, k))


def test_line_numbers_are_those_of_the_file():
    "An editor's 'go to line' has to arrive at the row"
    for text in SPY, SPY.replace('\n', '\n\n'), SPY.replace('545,', '"545",'), '\n\n' + SPY:
        rows = parse({'SPY.csv':text}).bars['SPY.csv']
        for line,day in zip(rows.row, rows.session, strict=True): assert text.split('\n')[line-1].startswith(str(day))


def test_a_row_without_any_price_is_a_session_without_a_bar():
    rows = parse({'SPY.csv':SPY + '2024-07-01,,,,,,,\n'}).bars['SPY.csv']
    assert np.isnan(rows.close[3]) and rows.dividend[3]==0 and len(rows)==4


def test_prices_of_other_magnitudes():
    "Reverse splits leave a first close of 8.8e10 and volumes below one"
    text = 'Date,Open,High,Low,Close,Volume\n2011-10-07,85290000000.0,92880000000.0,84240000000.0,88260000000.0,0.0004\n'
    rows = parse({'UVXY.csv':text}).bars['UVXY.csv']
    assert (rows.close[0], rows.volume[0], rows.claim)==(88260000000., .0004, '')


GARBAGE = np.random.default_rng(0).integers(0, 256, 10_000_000, dtype='uint8').tobytes()
HEAPS = {'bytes':GARBAGE, 'bytes without zeros':GARBAGE.replace(b'\0', b''), 'letters':b'garbage!'*1_250_000, 'commas':b','*10_000_000,
    'lines':b'x,x,x,x,x,x,x,x\n'*625_000, 'rows below a head':raw(HEAD) + b'\nx,x,x,x,x,x,x,x'*625_000,
    'rows below a row':raw(HEAD) + raw('\n' + ROWS[0]) + b'\nx,x,x,x,x,x,x,x'*625_000,
    'a line below a head':raw(HEAD) + b'\n' + b'x,'*5_000_000, 'quotes':raw(HEAD) + b'\n"x'*3_300_000, 'blank lines':b'\n'*10_000_000}


@pytest.mark.parametrize('name', ['SPY.csv', 'SPY.parquet', 'spy.zip'])
@pytest.mark.parametrize('heap', HEAPS)
def test_ten_megabytes_of_garbage(heap, name):
    start = time.process_time()
    refused([name], {name:HEAPS[heap]})
    assert time.process_time()-start<1


# ---- the two readers

CELLS = st.one_of(st.floats().map(repr), st.floats(allow_nan=False).map(lambda o: f'{o:.3e}'), st.integers(-10**20, 10**20).map(str),
    st.sampled_from(['', ' ', 'null', 'NaN', 'nan', 'NAN', ' null ', 'inf', '-inf', '1e999', '1e-999', '+5', '5.', '.5', '.', '1_0', '1e',
    '0x1', '١', '-0',
        '1 2', '"5"', '5"', "'5'", '\t7 ', '1d3', '1e+05', 'TRUE', '9'*400]),
    st.text(st.characters(codec='utf-8', exclude_characters='\r\n,;\0'), max_size=6))
DATES = st.one_of(st.dates().map(str), st.sampled_from(['2024-06-28', '2024-06-28 00:00:00', '2024-06-28 00:00:00-04:00',
    '2024-12-27 00:00:00-05:00',
    '2024-12-27 00:00:00-04:00', '2024-06-28 00:00:00+00:00', '2024-06-28T00:00:00Z', '2024-06-31', '2024-6-28', '28.06.2024', '20240628',
    'NaT', '',
    ' 2024-06-28', '２０２４-06-28', '2024-06-28 09:30:00', '2024-06-28 00:00:00-0400', '0000-01-01']))
KINDS = dict(number=CELLS, date=DATES)


def both_ways(text, columns, delimiter=','):
    "What the exact reader says, and what the fast one does, unless it leaves the file to the exact one"
    sheet = read_head('X.csv', text.encode(), delimiter)
    try: exact = exact_columns(sheet, columns)
    except DataError: exact = None
    fast = fast_columns(sheet, columns)
    if fast is None: return False
    assert exact is not None, f'only the fast reader accepts {text!r}'
    np.testing.assert_array_equal(fast[0], exact[0])
    for f,e in zip(fast[1], exact[1], strict=True):
        assert f.dtype==e.dtype and (f.tobytes()==e.tobytes() or f.dtype==object and (f==e).all())
    return True


@rules(max_examples=400, deadline=None)
@given(st.sampled_from(['number', 'date']).flatmap(lambda k: st.tuples(st.just(k), st.lists(KINDS[k], min_size=1, max_size=4))),
    st.booleans(), st.booleans())
def test_both_readers_decide_alike(cells, negative, crlf):
    kind,texts = cells
    both_ways('a,b' + ''.join(f'{chr(13)*crlf}\n{o},1' for o in texts), [Column(0, kind, negative), Column(1)])


@rules(max_examples=200, deadline=None)
@given(st.lists(st.one_of(DATES, st.sampled_from(['28.06.2024', '3.7.2024', '31.06.2024', '28.06.2024 ', '28,06,2024'])), min_size=1,
    max_size=3),
    st.lists(st.one_of(CELLS, st.sampled_from(['546,37', '1.000,5', ',5', '5,'])), min_size=1, max_size=3))
def test_both_readers_decide_alike_about_forms_and_commas(days, cells):
    columns = [Column(0, 'date', form='%d.%m.%Y'), Column(1, decimal=','), Column(2, 'text', decimal=',')]
    columns[0] = columns[0]._replace(decimal=',')
    both_ways('a;b;c' + ''.join(f'\n{d};{o};{o}' for d,o in zip(days, cells, strict=False)), columns, ';')


@pytest.mark.parametrize('body', ['"a"b,1', '"a\nb",1\nc,2', '"a""b",1', 'a"b,1', "'a',1", '"a" ,1',
    ' "a",1', 'a\rb,1', 'a,1\r\r\nb,2', 'a,1\n\nb,2', '\n\n', ' \n'])
def test_both_readers_decide_alike_about_quotes_and_line_ends(body): both_ways('t,n\n' + body, [Column(0, 'text'), Column(1)])


@pytest.mark.parametrize('text', ['-024-06-28', '+024-06-28', 'NaT       ', '20240628  ', '  20240628', '2024-06   ', '2024-06-2 ',
    '2024 06 28', '2024-06T28'])
def test_ten_characters_are_not_yet_a_date(text):
    assert not both_ways(f'd\n{text}\n', [Column(0, 'date')])


def test_the_fast_reader_is_used():
    "Plain files of all notations go the fast way, or folders of thousands would take minutes"
    for text in SPY, SPY.replace('\n', '\r\n'), '\n'.join([HEAD, *(o.replace(',', ' 00:00:00-04:00,', 1) for o in ROWS)]):
        assert both_ways(text, [Column(0, 'date'), *map(Column, range(1, 8))])
    assert both_ways('d;x;c\n28.06.2024;546,37;a\n', [Column(0, 'date', form='%d.%m.%Y', decimal=','), Column(1, decimal=','), Column(2,
        'text', decimal=',')], ';')


# ---- what the user adds

ACTIONS,NAMES = 'ticker,date,kind,value\n','ticker,name,asset_class\n'
TICKERS,FACTS = 'ticker,id,start,end\n','ticker,name,value,effective,known_at\n'
BAD_ADDITIONS = {
    'split as ratio': ({'actions.csv':ACTIONS + 'SPY,2024-06-27,split,2:1\n'}, ['actions.csv, row 2, column value']),
    'negative dividend': ({'actions.csv':ACTIONS + 'SPY,2024-06-27,dividend,-1\n'}, ['actions.csv, row 2, column value']),
    'no value': ({'actions.csv':ACTIONS + 'SPY,2024-06-27,dividend,\n'}, ['actions.csv, row 2, column value', 'above zero']),
    'unknown kind': ({'actions.csv':ACTIONS + 'SPY,2024-06-27,merger,2\n'}, ['actions.csv, row 2, column kind']),
    'unknown fund': ({'actions.csv':ACTIONS + 'SPX,2024-06-27,split,2\n'}, ['actions.csv, row 2', "'SPX'", "'SPY'"]),
    'two splits on a day': ({'actions.csv':ACTIONS + 2*'SPY,2024-06-27,split,2\n'}, ['actions.csv, row 3']),
    'misspelt column': ({'actions.csv':'ticker,date,kind,vlaue\n'}, ['actions.csv', "'vlaue'", "'value'"]),
    'column twice': ({'actions.csv':'ticker,date,kind,value,value\n'}, ['actions.csv', 'value', 'twice']),
    'paid before the ex-date': ({'actions.csv':'ticker,date,kind,value,pay\nSPY,2024-06-27,dividend,2,2024-06-01'}, ['row 2, column pay']),
    'path as ticker': ({'instruments.csv':NAMES + '../SPY,a,b\n'}, ['instruments.csv', "'../SPY'"]),
    'case of ticker': ({'instruments.csv':NAMES + 'spy,a,b\n'}, ['instruments.csv', 'SPY and spy']),
    'twice': ({'instruments.csv':NAMES + 'SPY,a,b\nSPY,c,d\n'}, ['instruments.csv, row 3']),
    'missing column': ({'instruments.csv':'ticker,name\nSPY,a\n'}, ['instruments.csv', 'asset_class']),
    'dead before it was born': ({'instruments.csv':'id,name,asset_class,listed,delisted\nX,a,b,2020-01-02,2019-01-02\n'},
    ['instruments.csv, row 2, column delisted']),
    'a value without an end': ({'instruments.csv':'id,name,asset_class,delisting_value\nX,a,b,5\n'}, ['instruments.csv']),
    'path as id': ({'symbols.csv':TICKERS + 'SPY,../../etc,,\n'}, ['symbols.csv', "'../../etc'"]),
    'two meanings': ({'symbols.csv':TICKERS + 'SPY,A,,2020-01-02\nSPY,B,2020-01-02,\n'}, ['symbols.csv, row 3', 'row 2']),
    'two meanings for ever': ({'symbols.csv':TICKERS + 'SPY,A,,\nQQQ,Q,,\nSPY,B,,\n'}, ['symbols.csv, row 4', 'row 2']),
    'end before start': ({'symbols.csv':TICKERS + 'SPY,A,2020-01-02,2019-01-02\n'}, ['symbols.csv, row 2, column end']),
    'no id': ({'symbols.csv':TICKERS + 'SPY,,2020-01-02,\n'}, ['symbols.csv, row 2, column id']),
    'bad date': ({'symbols.csv':TICKERS + 'SPY,A,2.1.2020,\n'}, ['symbols.csv, row 2, column start']),
    'fact twice': ({'facts.csv':FACTS + 2*'SPY,leverage,2,2020-01-02,\n'}, ['facts.csv, row 3']),
    'fact without value': ({'facts.csv':FACTS + 'SPY,leverage,,2020-01-02,\n'}, ['facts.csv, row 2, column value']),
    'case of a fact': ({'facts.csv':FACTS + 'Spy,leverage,2,,\n'}, ['facts.csv', 'SPY and Spy']),
    'percent': ({'rates.csv':'date,annual\n2024-06-27,5.3\n'}, ['rates.csv, row 2, column annual', '0.05']),
    'no rate': ({'rates.csv':'date,annual\n2024-06-27,\n'}, ['rates.csv, row 2, column annual']),
    'two rates of a day': ({'rates.csv':'date,annual' + 2*'\n2024-06-27,.05'}, ['rates.csv, row 3', '2024-06-27']),
    'two sources of the rate': ({'_IRX.csv':SPY, '^IRX.csv':SPY}, ['_IRX', '^IRX']),
    'rates and _IRX': ({'_IRX.csv':SPY, 'rates.csv':'date,annual\n'}, ['_IRX.csv', 'rates.csv']),
    'two files, one fund': ({'spy.csv':SPY}, ['SPY and spy', 'case']),
    'two formats, one fund': ({'spy_us_d.csv':'Date,Open,High,Low,Close,Volume\n2024-06-27,1,1,1,1,1\n'}, ['SPY.csv', 'spy_us_d.csv',
    'both about SPY']),
    'an option for a name': ({'-rf.csv':SPY}, ["'-rf'"]),
    'a blank in a name': ({'S PY.csv':SPY}, ["'S PY'"]),
    'a path in a name': ({'..SPY.csv':SPY}, ["'..SPY'"]),
}


@pytest.mark.parametrize('case', BAD_ADDITIONS)
def test_a_bad_addition_is_refused_with_its_place(case):
    files,parts = BAD_ADDITIONS[case]
    refused(parts, {'SPY.csv':SPY} | files)


def test_additions_arrive():
    data = parse({'SPY.csv':SPY, 'symbols.csv':TICKERS + 'SPY,SPY,1993-01-29,\nOLD,SPY,,1993-01-28\n',
        'facts.csv':FACTS + 'SPY,leverage,1,,\n',
        'actions.csv':'ticker,date,kind,value\nOLD,1992-06-29,spinoff,2\nSPY,2024-06-28,capital_gain,.5\n',
        'rates.csv':'date,annual\n2024-06-28,-.001\n',
        'instruments.csv':'ticker,name,asset_class,delisted,delisting_value\nXIV,Inverse VIX,volatility,2018-02-20,5.99\n'},
        downloaded='2024-06-28T22:15:00-04:00', splits_complete=True, prices='adjusted')
    assert data.actions.kind.tolist()==['spinoff', 'capital_gain'] and data.rates.annual.tolist()==[-.001]
    assert data.facts.known_at.isna().all() and data.symbols.start.isna().tolist()==[False, True]
    assert data.instruments.delisting_value[0]==5.99 and data.instruments.listed.isna()[0]
    assert data.downloaded==datetime(2024, 6, 29, 2, 15, tzinfo=UTC) and data.splits_complete and data.prices=='adjusted'


# ---- files of the user's own making

BAD_MAPPINGS = {
    'unknown key': ('date: d\nclose: c\nvolum: v\n', ["volum: unknown key; did you mean 'volume'?"]),
    'no close': ('date: d\n', ['needs close']),
    'not text': ('date: 5\nclose: c\n', ['mapping.yaml.date']),
    'scale of nothing': ('date: d\nclose: c\nscale: 0\n', ['scale']),
    'scale as text': ('date: d\nclose: c\nscale: "100"\n', ['scale']),
    'claim': ('date: d\nclose: c\nclaim: adjusted\n', ['mapping.yaml.claim']),
    'decimal and delimiter': ('date: d\nclose: c\ndecimal: ","\n', ['delimiter']),
    'form': ('date: d\nclose: c\ndate_format: "%d.%m.%y"\n', ['date_format', '%Y']),
    'code': ('date: !!python/object/apply:os.system ["true"]\n', ['not YAML', 'constructor']),
    'twice': ('date: d\ndate: e\nclose: c\n', ['given twice']),
    'a list': ('- date\n', ['expected a mapping']),
    'not YAML': ('date: [d\n', ['not YAML']),
    'the kind': ('kind: columns\ndate: d\nclose: c\n', ["unknown key 'kind'"]),
}


@pytest.mark.parametrize('case', BAD_MAPPINGS)
def test_a_bad_mapping_is_refused(case):
    text,parts = BAD_MAPPINGS[case]
    refused(['mapping.yaml', *parts], {'SPY.csv':SPY, 'mapping.yaml':text}, error=ConfigError)


LONG = 'date: day\nclose: px\nticker: sym\ndividend: cash\nsplit: ratio\nscale: 0.01\nclaim: as_traded\n'
BAD_LONG = {
    'no ticker': ('day,sym,px,cash,ratio\n2024-06-27,,1,0,1\n', ['all.csv, row 2', 'no ticker']),
    'case': ('day,sym,px,cash,ratio\n2024-06-27,SPY,1,0,1\n2024-06-27,spy,1,0,1\n', ['all.csv', 'SPY and spy']),
    'path': ('day,sym,px,cash,ratio\n2024-06-27,../SPY,1,0,1\n', ['all.csv', "'../SPY'"]),
    'bad cell': ('day,sym,px,cash,ratio\n2024-06-27,SPY,1,0,1\n2024-06-27,GLD,"1,5",0,1\n', ['all.csv, row 3, column px']),
    'title twice': ('day,sym,px,px,cash,ratio\n2024-06-27,SPY,1,1,0,1\n', ['all.csv', 'px is there twice']),
    'title missing': ('day,sym,price,cash,ratio\n2024-06-27,SPY,1,0,1\n', ['all.csv', 'unknown layout']),
}


@pytest.mark.parametrize('case', BAD_LONG)
def test_a_bad_long_file_is_refused(case):
    text,parts = BAD_LONG[case]
    refused(parts, {'all.csv':text, 'mapping.yaml':LONG})


def test_a_long_file_is_many_funds():
    text = 'note,day,sym,px,cash,ratio\n' + ''.join(f'x,2024-06-{d},{t},{1000*d},25,{int(t=="GLD")*2}\n' for d in (26, 27,
        28) for t in ('SPY', 'GLD'))
    table = io.BytesIO()
    pd.read_csv(io.StringIO(text), parse_dates=['day']).to_parquet(table)
    for name,content,first in ('all.csv', text, 2), ('all.parquet', table.getvalue(), 1):
        data = parse({name:content, 'mapping.yaml':LONG})
        assert list(data.bars)==[f'{name}:SPY', f'{name}:GLD']
        gld = data.bars[f'{name}:GLD']
        assert gld.row.tolist()==[first+1, first+3, first+5] and gld.close.tolist()==[260, 270, 280] and gld.claim=='as_traded'
        assert gld.dividend.tolist()==[.25]*3 and gld.split.tolist()==[2]*3 and data.bars[f'{name}:SPY'].split.tolist()==[1]*3


def test_a_mapping_stands_beside_known_layouts():
    mapping = 'date: Datum\nclose: Kurs\ndecimal: ","\ndelimiter: ";"\ndate_format: "%d.%m.%Y"'
    data = parse({'SPY.csv':SPY, 'GLD.csv':'Datum;Kurs\n28.6.2024;215,01\n', 'mapping.yaml':mapping})
    assert data.bars['GLD.csv'].close.tolist()==[215.01] and data.bars['SPY.csv'].claim=='split_adjusted' and data.bars['GLD.csv'].claim==''
    assert read_mapping('m.yaml', b'date: d\nclose: c').titles==dict(date='d', close='c')


# ---- Parquet

def parquet(frame, **options):
    out = io.BytesIO()
    frame.to_parquet(out, **options)
    return out.getvalue()


def frame(**changes):
    days = pd.to_datetime(['2024-06-27', '2024-06-28'])
    return pd.DataFrame(dict(date=days, open=1., high=1., low=1., close=[1., 2.], volume=[1, 2]) | changes)


BAD_PARQUET = {
    'not one': (b'Date,Open\n', ['SPY.parquet is not a Parquet file']),
    'empty': (b'', ['SPY.parquet is empty']),
    'cut': (parquet(frame())[:-30], ['SPY.parquet is not a Parquet file']),
    'damaged': (parquet(frame())[:40] + b'\0'*40 + parquet(frame())[80:], ['SPY.parquet']),
    'missing column': (parquet(frame().drop(columns='low')), ['SPY.parquet', 'missing: low']),
    'time of day': (parquet(frame(date=pd.to_datetime(['2024-06-27 00:00', '2024-06-28 16:00']))), ['SPY.parquet, row 2, column date',
    'time of day']),
    'another zone': (parquet(frame(date=pd.to_datetime(['2024-06-27', '2024-06-28']).tz_localize('Asia/Tokyo'))), ['column date',
    'Asia/Tokyo']),
    'no date': (parquet(frame(date=[pd.Timestamp('2024-06-27'), pd.NaT])), ['SPY.parquet, row 2, column date', 'empty']),
    'dates as numbers': (parquet(frame(date=[20240627, 20240628])), ['SPY.parquet, column date', 'int64']),
    'dates in two formats': (parquet(frame(date=['2024-06-27', '28.06.2024'])), ['SPY.parquet, row 2, column date']),
    'texts': (parquet(frame(close=['1', '2'])), ['SPY.parquet, column close', 'not numbers']),
    'infinite': (parquet(frame(close=[1, np.inf])), ['SPY.parquet, row 2, column close', 'finite']),
    'negative volume': (parquet(frame(volume=[1, -2])), ['SPY.parquet, row 2, column volume', 'below zero']),
    'NaN close': (parquet(frame(close=[1, np.nan])), ['SPY.parquet, row 2, column close', 'empty']),
    'no rows': (parquet(frame().head(0)), ['SPY.parquet', 'no rows']),
}


@pytest.mark.parametrize('case', BAD_PARQUET)
def test_a_bad_parquet_file_is_refused(case):
    content,parts = BAD_PARQUET[case]
    refused(parts, {'SPY.parquet':content})


@pytest.mark.parametrize('made', [frame(), frame().set_index('date'), frame().sample(frac=1, random_state=1).sort_values('date'),
    frame().astype(dict(volume='float32')),
    frame(date=frame().date.dt.date), frame(date=['2024-06-27', '2024-06-28']), frame(date=frame().date.dt.tz_localize('America/New_York')),
    frame(date=frame().date.dt.tz_localize('UTC')), frame(date=frame().date.astype('datetime64[ns]'))])
def test_parquet_is_read_however_its_dates_are_stored(made):
    rows = parse({'SPY.parquet':parquet(made)}).bars['SPY.parquet']
    assert rows.session.astype(str).tolist()==['2024-06-27', '2024-06-28'] and rows.close.tolist()==[1, 2] and rows.row.tolist()==[1, 2]


def test_an_index_without_a_name_is_the_date():
    made = frame().set_index('date').rename_axis(None)
    rows = parse({'SPY.parquet':parquet(made)}).bars['SPY.parquet']
    assert rows.session.astype(str).tolist()==['2024-06-27', '2024-06-28']


# ---- LEAN

BARS = ''.join(f'2024{d} 00:00,{p},{p},{p},{p},1000\n' for d,p in (('0606', 2400000), ('0607', 2410000), ('0610', 1210000), ('0611',
    1220000), ('0612', 1215000)))
FACTORS = '20240606,0.9901639,0.5,1\n20240607,0.9901639,0.5,241\n20240611,0.9901639,1,122\n20501231,1,1,0\n'
MAP = '20240606,abc,P\n20501231,abc,P\n'


def zipped(*members, compress=zipfile.ZIP_DEFLATED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w', compress) as z:
        for name,text in members: z.writestr(name, text)
    return out.getvalue()


def lying_zip():
    "A member that claims to be small and is not"
    good,size = zipped(('abc.csv', b'0'*70_000_000)),(70_000_000).to_bytes(4, 'little')
    return good.replace(size, (100).to_bytes(4, 'little'))


GOOD = zipped(('abc.csv', BARS))
BAD_LEAN = {
    'not a zip': ({'abc.zip':b'Date,Open\n'}, ['abc.zip is not a zip']),
    'empty': ({'abc.zip':b''}, ['abc.zip is not a zip']),
    'cut': ({'abc.zip':GOOD[:-30]}, ['abc.zip is not a zip']),
    'damaged': ({'abc.zip':GOOD[:50] + b'\0\0\0' + GOOD[53:]}, ['abc.zip']),
    'nothing in it': ({'abc.zip':zipped()}, ['abc.zip', 'found nothing']),
    'another name': ({'abc.zip':zipped(('xyz.csv', BARS))}, ['abc.zip', "'xyz.csv'"]),
    'a path': ({'abc.zip':zipped(('../abc.csv', BARS))}, ['abc.zip', "'../abc.csv'"]),
    'two members': ({'abc.zip':zipped(('abc.csv', BARS), ('b.csv', BARS))}, ['abc.zip', "'b.csv'"]),
    'a bomb': ({'abc.zip':zipped(('abc.csv', b'0'*200_000_000))}, ['abc.zip', '200,000,000 bytes']),
    'a bomb that lies': ({'abc.zip':lying_zip()}, ['abc.zip']),
    'intraday': ({'abc.zip':zipped(('abc.csv', BARS.replace('0610 00:00', '0610 09:30')))}, ['abc.csv, row 3, column date']),
    'an empty price': ({'abc.zip':zipped(('abc.csv', BARS.replace('1210000,1000', ',1000')))}, ['abc.csv, row 3, column close']),
    'five columns': ({'abc.zip':zipped(('abc.csv', BARS.replace(',1000', '')))}, ['abc.csv, row 1', '5 cells']),
    'empty member': ({'abc.zip':zipped(('abc.csv', ''))}, ['abc.csv is empty']),
    'factor of zero': ({'abc.factor_files.csv':FACTORS.replace('1,1,0', '1,0,0')}, ['abc.factor_files.csv, row 4, column split factor']),
    'factors out of order': ({'abc.factor_files.csv':FACTORS.replace('20240607', '20240605')},
    ['abc.factor_files.csv, row 2, column date']),
    'a falling factor': ({'abc.factor_files.csv':FACTORS.replace('31,1,1', '31,0.9,1')},
    ['abc.factor_files.csv, row 4, column price factor', 'falls']),
    'factors of another fund': ({'abc.factor_files.csv':FACTORS.replace(',241', ',300')},
    ['abc.factor_files.csv, row 2, column reference price', '241']),
    'map of one row': ({'abc.map_files.csv':'20501231,abc,P\n'}, ['abc.map_files.csv', '1 rows']),
    'map out of order': ({'abc.map_files.csv':MAP + '20400101,abcd,P\n'}, ['abc.map_files.csv, row 3, column date']),
    'map against symbols': ({'abc.map_files.csv':MAP, 'symbols.csv':TICKERS + 'ABC,X,,\n'}, ['symbols.csv, row 2', 'ABC', 'map file']),
}


@pytest.mark.parametrize('case', BAD_LEAN)
def test_bad_lean_files_are_refused(case):
    files,parts = BAD_LEAN[case]
    refused(parts, {'abc.zip':GOOD} | files)


def test_rounding_in_a_factor_file_is_no_dividend():
    noisy = FACTORS.replace('20240606,0.9901639', '20240606,0.9901638')
    abc = parse({'abc.zip':GOOD, 'abc.factor_files.csv':noisy}).bars['abc.zip']
    assert np.flatnonzero(abc.dividend).tolist()==[4] and abc.dividend[4]==pytest.approx(1.2, abs=1e-4)
    assert abc.split.tolist()==[1, 1, 2, 1, 1]
    real = FACTORS.replace('20240606,0.9901639', '20240606,0.9901600').replace('0.5,1\n', '0.5,240\n')
    abc = parse({'abc.zip':GOOD, 'abc.factor_files.csv':real}).bars['abc.zip']
    assert abc.dividend[1]==pytest.approx(240*39e-7/.9901639, rel=1e-3), 'a dividend of a tenth of a cent is one'


def test_a_dividend_and_a_split_on_one_day():
    "The factor row's price is from before the split, the dividend is per share after it"
    both = '20240607,0.99,0.5,241\n20501231,1,1,0\n'
    abc = parse({'abc.zip':GOOD, 'abc.factor_files.csv':both}).bars['abc.zip']
    assert abc.split[2]==2 and abc.dividend[2]==pytest.approx(2.41/2)


def test_a_zip_without_factors_says_nothing_about_dividends():
    data = parse({'abc.zip':GOOD, 'xyz.factor_files.csv':FACTORS})
    assert np.isnan(data.bars['abc.zip'].dividend).all() and np.isnan(data.bars['abc.zip'].split).all()
    for part in 'abc.zip has no factor file', 'xyz.factor_files.csv was not needed': assert any(part in o for o in data.notes)


def test_events_follow_a_fund_through_its_tickers():
    "ABC until 7 June, somebody else's letters before, WXYZ since; the factor file is ABC's"
    maps = '20240607,abc,P\n20240607,abc,P\n20501231,wxyz,P\n'.replace('20240607,abc,P\n20240607', '20240606,abc,P\n20240607')
    later = BARS.splitlines()[3]
    files = {'abc.zip':GOOD, 'wxyz.zip':zipped(('wxyz.csv', later)), 'abc.factor_files.csv':FACTORS, 'abc.map_files.csv':maps}
    data = parse(files)
    abc = data.bars['abc.zip']
    assert (abc.split==1)[:2].all() and np.isnan(abc.split[2:]).all(), 'after 7 June ABC is somebody else'
    alone = data.bars['abc.factor_files.csv:WXYZ']
    assert alone.ticker=='WXYZ' and alone.session.astype(str).tolist()==['2024-06-10']
    assert alone.split.tolist()==[2] and np.isnan(alone.close).all() and data.bars['wxyz.zip'].dividend.tolist()==[0]
    assert any('left out' in o for o in data.notes), 'the dividend of 12 June lies after the last bar'
    assert data.symbols[['ticker', 'id']].values.tolist()==[['ABC', 'ABC'], ['WXYZ', 'ABC']]


# ---- folders

def test_fetch_takes_what_it_can_read(tmp_path):
    folder,other = tmp_path/'vendor',tmp_path/'mine'
    for o in folder, other: o.mkdir()
    for name,text in {'SPY.csv':SPY, 'GLD.parquet':parquet(frame()), 'abc.zip':GOOD, 'README.md':'x', '.hidden.csv':'x', '_VIX.csv':SPY,
        'all_of_it.csv':SPY}.items():
        (folder/name).write_bytes(raw(text))
    (folder/'sub.csv').mkdir()
    (other/'mine.csv').write_text(ACTIONS + 'SPY,2024-06-27,split,2\n')
    vendor = CsvFolder(actions=str(other/'mine.csv'))
    with pytest.raises(DataError, match='all_of_it.*cannot be a ticker'): list(vendor.fetch(folder))
    (folder/'all_of_it.csv').unlink()
    files = dict(vendor.fetch(str(folder)))
    assert sorted(files)==['GLD.parquet', 'SPY.csv', '_VIX.csv', 'abc.zip', 'actions.csv']
    data = vendor.parse(files)
    assert sorted(data.bars)==['GLD.parquet', 'SPY.csv', 'abc.zip'] and len(data.actions)==1 and any('_VIX' in o for o in data.notes)
    assert str(tmp_path) not in json.dumps(vendor.request()) and vendor.request()['actions']=='mine.csv'
    (folder/'actions.csv').write_text(ACTIONS)
    with pytest.raises(DataError, match='actions.csv and another one was given'): list(vendor.fetch(folder))
    with pytest.raises(DataError, match='facts=.*is not a file'): list(CsvFolder(facts=str(other/'none.csv')).fetch(folder))
    with pytest.raises(DataError, match='not a folder'): list(vendor.fetch(tmp_path/'nowhere'))
    (folder/'Spy.parquet').write_bytes(parquet(frame()))
    with pytest.raises(DataError, match='SPY and Spy differ only by case'): list(CsvFolder().fetch(folder))


def test_a_long_file_may_have_any_name(tmp_path):
    (tmp_path/'all_my_funds 2024.csv').write_text('day,sym,px,cash,ratio\n2024-06-27,SPY,1,0,1\n')
    (tmp_path/'mapping.yaml').write_text(LONG)
    assert list(CsvFolder().parse(dict(CsvFolder().fetch(tmp_path))).bars)==['all_my_funds 2024.csv:SPY']


@pytest.mark.parametrize('when', ['yesterday', '2024-06-28', '2024-06-28T22:15:00'])
def test_a_download_time_has_a_zone(when):
    with pytest.raises(ConfigError, match='downloaded='): CsvFolder(downloaded=when)


# ---- the real files, against a plain reading by pandas

def plain(file):
    "Sessions and closes, as pandas reads them; no code of ours"
    if file.suffix=='.parquet': t = pd.read_parquet(file); return t.date.astype(str).str[:10], t.close
    if file.suffix=='.zip':
        t = pd.read_csv(file, header=None)
        return t[0].str.replace(r'(\d{4})(\d\d)(\d\d).*', r'\1-\2-\3', regex=True), t[4]/10_000
    lines = file.read_text().splitlines()
    top = 1 + next(i for i,o in enumerate(lines) if o.startswith('Date,,')) if lines[0].startswith('Price') else 0
    t = pd.read_csv(io.StringIO('\n'.join(lines[:1] + lines[top:] if top else lines)))
    return t.iloc[:,0].str[:10], t.Close if 'Close' in t else t.close


REAL_FOLDERS = {'yahoo_daily':33, 'yahoo_daily_eem':1, 'yahoo_vintages/20250903T2008Z_intraday':1, 'yahoo_vintages/20250916_full':1,
    'yahoo_vintages/20250917_missing_0915':2, 'yahoo_vintages/20250919_pre_exdiv':1, 'yahoo_vintages/20250920_post_exdiv':1, 'lean':4,
    'stooq_wire':2, 'stooq_qetf':8, 'alphavantage_wire/20260814':4, 'alphavantage_wire/20260817':4, 'alphavantage_wire/20260821':4}
CLAIMS = dict(yahoo='split_adjusted', lean='as_traded', stooq='', alpha='as_traded')


def real(*parts):
    folder = REAL.joinpath(*parts)
    if not folder.exists(): pytest.skip(f'no {folder}')
    return folder


def reference_numbers():
    file = GOLDEN/'golden.json'
    if not file.is_file(): pytest.skip(f'no {file}')
    return json.loads(file.read_text())


@pytest.mark.real_data
@pytest.mark.parametrize('name', REAL_FOLDERS)
def test_real_folders_are_read_as_pandas_reads_them(name):
    folder,vendor = real(name),CsvFolder()
    data = vendor.parse(dict(vendor.fetch(folder)))
    bars = {k:o for k,o in data.bars.items() if ':' not in k}
    assert len(bars)==REAL_FOLDERS[name]
    for file,rows in bars.items():
        day,close = plain(folder/file)
        assert rows.session.astype(str).tolist()==day.tolist() and rows.ticker==ticker_of(file)
        np.testing.assert_allclose(rows.close, close, rtol=1e-15)
        assert rows.claim==next(v for k,v in CLAIMS.items() if name.startswith(k))
    assert (data.rates is not None)==(name=='yahoo_daily')


@pytest.mark.real_data
@pytest.mark.parametrize('file,ticker,claim,cash,gains', [('DODFX-1d-cg-double-count.csv', 'DODFX', 'split_adjusted', 1.118, .417),
    ('DODFX-1d-cg-double-count-fixed.csv', 'DODFX', 'split_adjusted', 1.118, .417), ('EWG-1d-no-bad-divs.csv', 'EWG', 'split_adjusted',
        2.32, 0),
    ('UVXY_matdev83.csv', 'UVXY', '', np.nan, np.nan)])
def test_the_traps_are_read(file, ticker, claim, cash, gains):
    path = real('traps', file)
    rows = parse({f'{ticker}.csv':path.read_bytes()}).bars[f'{ticker}.csv']
    day,close = plain(path)
    assert rows.session.astype(str).tolist()==day.tolist() and rows.close.tolist()==close.tolist() and rows.claim==claim
    assert rows.dividend.sum()==pytest.approx(cash, nan_ok=True) and rows.capital_gain.sum()==pytest.approx(gains, nan_ok=True)


@pytest.mark.real_data
def test_lean_events_are_the_published_ones():
    golden,vendor = reference_numbers(),CsvFolder()
    data = vendor.parse(dict(vendor.fetch(real('lean'))))
    spy = data.bars['spy.zip']
    paid = dict(zip(spy.session.astype(str), spy.dividend, strict=True))
    listed = {k:v for k,v in golden['spy_dividends'].items() if k[:2]=='20'}
    assert len(listed)>=3
    for day,value in listed.items(): assert paid[day]==pytest.approx(value, abs=golden['spy_dividends']['atol'])
    assert (spy.dividend>0).sum()==94
    for file,rows in data.bars.items():
        if ':' in file: continue
        at = np.flatnonzero((rows.split!=1) & ~np.isnan(rows.split))
        assert [[str(rows.session[i]), rows.split[i]] for i in at]==golden['splits'].get(rows.ticker, [])


@pytest.mark.real_data
def test_lean_total_return_is_the_published_one():
    "Calendar years of SPY. The list compounds by P/(P0-D), as back-adjusted closes do: 4 bp from (P+D)/P0 in 2020"
    golden,vendor = reference_numbers()['spy_calendar_year_total_return_percent'],CsvFolder()
    spy = vendor.parse({k:v for k,v in vendor.fetch(real('lean')) if k.startswith('spy')}).bars['spy.zip']
    growth = pd.Series(np.append(1, spy.close[1:]/(spy.close[:-1] - spy.dividend[1:])).cumprod(), pd.DatetimeIndex(spy.session))
    yearly = growth.groupby(growth.index.year).last().pct_change()*100
    for year,want in golden.items():
        if year.isdigit(): assert yearly[int(year)]==pytest.approx(want, abs=golden['atol'])


@pytest.mark.real_data
def test_lean_tickers_are_not_instruments():
    vendor = CsvFolder()
    data = vendor.parse(dict(vendor.fetch(real('lean'))))
    qqq = data.symbols[data.symbols.id=='QQQ']
    assert qqq.ticker.tolist()==['QQQ', 'QQQQ', 'QQQ'] and qqq.start.astype(str).tolist()==['1999-03-10', '2004-12-01', '2011-03-23']
    assert [str(o)[:10] for o in qqq.end]==['2004-11-30', '2011-03-22', 'NaT']
    hole = data.bars['qqq.factor_files.csv:QQQQ']
    assert len(hole)==24 and str(hole.session[0])=='2004-12-17' and hole.dividend[0]==pytest.approx(.379, abs=5e-4)
    assert np.isnan(hole.close).all()
    eem = data.bars['eem.zip']
    before = eem.session<np.datetime64('2003-04-11')
    assert before.sum()==722 and np.isnan(eem.dividend[before]).all() and not np.isnan(eem.dividend[~before]).any()
    assert str(data.symbols.set_index('ticker').start['EEM'])[:10]=='2003-04-11'


@pytest.mark.real_data
def test_tiingo_csv_as_recorded():
    file = real('tiingo_wire', 'ticker_price_pandas_daily_csv.yaml')
    import yaml
    text = yaml.safe_load(file.read_text())['interactions'][0]['response']['body']['string']
    rows = read_prices('GOOGL.csv', text.encode())
    assert rows.claim=='as_traded' and rows.close[:2].tolist()==[1110.29, 1114.21] and (rows.split==1).all() and (rows.dividend==0).all()


@pytest.mark.real_data
def test_reading_is_fast():
    "5,000 files of 2,300 rows in 20 seconds: 4 ms each, with room for a busy machine"
    lines = (real('yahoo_daily')/'SPY.csv').read_bytes().split(b'\n')[:2301]
    text,best = b'\n'.join(lines) + b'\n',np.inf
    for _ in range(20):
        start = time.perf_counter()
        read_prices('SPY.csv', text)
        best = min(best, time.perf_counter()-start)
    assert best<.012, f'{1e3*best:.1f} ms'


def test_parquet_of_other_programs():
    "Dates and decimals as Arrow writes them without pandas"
    out = io.BytesIO()
    pq.write_table(pa.table(dict(date=pa.array([19901, 19902], pa.date32()), open=pa.array([1, 2], pa.int32()), high=pa.array([1, 2],
        pa.decimal128(9, 2)),
        low=pa.array([None, None], pa.null()), close=pa.array([1, 2], pa.float32()), volume=pa.array([1, None], pa.int64()))), out)
    rows = parse({'SPY.parquet':out.getvalue()}).bars['SPY.parquet']
    assert rows.session.astype(str).tolist()==['2024-06-27', '2024-06-28'] and rows.high.tolist()==[1, 2]
    assert np.isnan([*rows.low, rows.volume[1]]).all()
