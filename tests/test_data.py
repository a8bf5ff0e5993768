"""From vendor files to snapshots: what crosses processes, what needs real data, and what must be refused"""
import io
import json
import os
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import quantetf.data.snapshot as snapshots
from quantetf.calendars import sessions_between
from quantetf.core import ConfigError, DataError, IntegrityError, ParameterError, Settings
from quantetf.data.actions import total_return
from quantetf.data.curate import curate
from quantetf.data.files import CsvFolder, annual_rate
from quantetf.data.ingest import Restated, ingest
from quantetf.data.raw import keep_raw, read_raw
from quantetf.data.schema import Tables
from quantetf.data.snapshot import datasets, make_record, open_snapshot, publish

ROOT = Path(__file__).resolve().parent.parent
REAL = Path(os.environ.get('QUANTETF_REAL_DATA', ROOT.parent/'shared'/'data')).resolve()
HEAD = 'Date,Open,High,Low,Close,AdjClose,Volume,Dividends'
ROWS = ['2024-06-26,545,547,544,545.5,543.75,1000,0', '2024-06-27,546,547,545,546.4,544.65,1000,0',
    '2024-06-28,547,550,543,544.2,544.2,1000,1.75']
SPY = '\n'.join([HEAD, *ROWS]) + '\n'


def settings_in(folder): return Settings(folder, folder, folder, folder)


@pytest.fixture
def place(tmp_path): return settings_in(tmp_path/'data')


def folder_of(tmp_path, **files):
    folder = tmp_path/'vendor'
    folder.mkdir(exist_ok=True)
    for name,text in files.items(): (folder/f'{name}.csv').write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def row(i, text): return '\n'.join([HEAD, *ROWS[:i], text, *ROWS[i+1:]]) + '\n'


# ---- what must be refused, with its place

BAD_FILES = {
    'empty': ('', ['SPY.csv is empty']),
    'only a head': (HEAD + '\n', ['SPY.csv', 'no rows']),
    'missing column': (SPY.replace('AdjClose', 'Adj'), ['SPY.csv', 'missing: AdjClose', 'unknown: Adj']),
    'no dividends column': ('\n'.join(o.rsplit(',', 1)[0] for o in SPY.splitlines()), ['SPY.csv', 'missing: Dividends']),
    'semicolons': (SPY.replace(',', ';'), ['SPY.csv', 'unknown layout']),
    'unparsable date': (row(1, '27 June,546,547,545,546.4,544.65,1000,0'), ['SPY.csv, row 3, column Date', "'27 June'"]),
    'impossible date': (row(1, '2024-06-31,546,547,545,546.4,544.65,1000,0'), ['SPY.csv, row 3, column Date', 'not a day']),
    'two date formats': (row(1, '2024-06-27 00:00:00,546,547,545,546.4,544.65,1000,0'), ['SPY.csv, row 3, column Date', 'two notations']),
    'day first': (row(0, '26/06/2024,546,547,545,546.4,544.65,1000,0'), ['SPY.csv, row 2, column Date']),
    'intraday': (row(0, '2024-06-26 10:30:00,546,547,545,546.4,544.65,1000,0'), ['SPY.csv, row 2, column Date']),
    'decimal comma': (row(1, '2024-06-27,546,547,545,546,4,544.65,1000,0'), ['SPY.csv, row 3', '9 cells']),
    'quoted decimal comma': (row(1, '2024-06-27,546,547,545,"546,4",544.65,1000,0'), ['SPY.csv, row 3, column Close', "'546,4'"]),
    'thousands': (row(1, '2024-06-27,546,547,545,1_546.4,544.65,1000,0'), ['SPY.csv, row 3, column Close']),
    'NaN close': (row(1, '2024-06-27,546,547,545,NaN,544.65,1000,0'), ['SPY.csv, row 3, column Close', 'empty']),
    'NaN adjusted close': (row(1, '2024-06-27,546,547,545,546.4,,1000,0'), ['SPY.csv, row 3, column AdjClose']),
    'no dividend cell': (row(1, '2024-06-27,546,547,545,546.4,544.65,1000,'), ['SPY.csv, row 3, column Dividends']),
    'infinite': (row(1, '2024-06-27,546,inf,545,546.4,544.65,1000,0'), ['SPY.csv, row 3, column High']),
    'overflow': (row(1, '2024-06-27,546,1e999,545,546.4,544.65,1000,0'), ['SPY.csv, row 3, column High']),
    'negative close': (row(1, '2024-06-27,546,547,545,-546.4,544.65,1000,0'), ['SPY.csv, row 3, column Close', 'below zero']),
    'negative volume': (row(1, '2024-06-27,546,547,545,546.4,544.65,-1,0'), ['SPY.csv, row 3, column Volume']),
    'negative dividend': (row(1, '2024-06-27,546,547,545,546.4,544.65,1,-2'), ['SPY.csv, row 3, column Dividends']),
    'short row': (row(1, '2024-06-27,546,547'), ['SPY.csv, row 3', '3 cells']),
    'contradiction': (SPY + '2024-06-28,547,550,543,540,540,1000,0\n', ['SPY.csv, rows 4 and 5', '2024-06-28']),
    'no bar at all': (HEAD + '\n2024-06-29,1,1,1,1,1,1,0\n', ['no row is left']),
    'not UTF-8': (SPY.encode('utf-16'), ['SPY.csv', 'UTF-8']),
    'a page': ('<html><body>Too many requests</body></html>', ['SPY.csv', 'unknown layout']),
    'three rows, wrong ticker': ('Price,Price,Close,High,Low,Open,Volume\nTicker'+6*',QQQ'+'\nDate,,,,,,\n2024-06-26,1,1,1,1,1,1\n',
        ['SPY.csv, row 2', 'QQQ']),
    'three rows, cut head': ('Price,Price,Close,High,Low,Open,Volume\n2024-06-26,1,1,1,1,1,1\n', ['SPY.csv', 'unknown layout']),
}


@pytest.mark.parametrize('case', BAD_FILES)
def test_a_bad_file_is_refused_with_its_place(case, tmp_path, place):
    text,parts = BAD_FILES[case]
    folder = folder_of(tmp_path, SPY=text)
    with pytest.raises(DataError) as e: ingest('csv', folder, 'bad', place)
    for part in parts: assert part in str(e.value), str(e.value)
    assert str(tmp_path) not in str(e.value)
    assert not (place.data/'snapshots').exists() and datasets(place)==['demo']


BAD_ADDITIONS = {
    'split as ratio': (dict(actions='ticker,date,kind,value\nSPY,2024-06-27,split,2:1\n'), ['actions.csv, row 2, column value']),
    'unknown kind': (dict(actions='ticker,date,kind,value\nSPY,2024-06-27,merger,2\n'), ['actions.csv, row 2, column kind']),
    'unknown fund': (dict(actions='ticker,date,kind,value\nSPX,2024-06-27,split,2\n'), ['actions.csv, row 2', "'SPX'", "'SPY'"]),
    'path as ticker': (dict(instruments='ticker,name,asset_class\n../SPY,a,b\n'), ['instruments.csv', "'../SPY'"]),
    'case of ticker': (dict(instruments='ticker,name,asset_class\nspy,a,b\n'), ['instruments.csv', 'SPY and spy']),
    'twice': (dict(instruments='ticker,name,asset_class\nSPY,a,b\nSPY,c,d\n'), ['instruments.csv, row 3']),
    'not a session': (dict(actions='ticker,date,kind,value\nSPY,2024-06-29,split,2\n'), ['actions.csv, row 2', '2024-07-01']),
    'another dividend': (dict(actions='ticker,date,kind,value\nSPY,2024-06-28,dividend,1.95\n'), ['actions.csv, row 2', '1.95', '1.75']),
    'two splits on a day': (dict(actions='ticker,date,kind,value' + 2*'\nSPY,2024-06-27,split,2'), ['actions.csv, row 3']),
    'misspelt column': (dict(actions='ticker,date,kind,vlaue\n'), ['actions.csv', "'vlaue'", "'value'"]),
    'missing column': (dict(instruments='ticker,name\nSPY,a\n'), ['instruments.csv', 'asset_class']),
    'two files, one fund': (dict(spy=SPY), ['SPY and spy', 'case']),
    'two rates': ({'_IRX':SPY, '^IRX':SPY}, ['_IRX', '^IRX']),
    'an option for a name': ({'-rf':SPY}, ["'-rf'"]),
    'a blank in a name': ({'S PY':SPY}, ["'S PY'"]),
}


@pytest.mark.parametrize('case', BAD_ADDITIONS)
def test_a_bad_addition_is_refused_with_its_place(case, tmp_path, place):
    files,parts = BAD_ADDITIONS[case]
    folder = folder_of(tmp_path, SPY=SPY, **files)
    with pytest.raises(DataError) as e: ingest('csv', folder, 'bad', place)
    for part in parts: assert part in str(e.value), str(e.value)


def test_bad_requests(tmp_path, place):
    folder = folder_of(tmp_path, SPY=SPY)
    for bad in '../up', 'a/b', '', '.', 'us 33', 'demo':
        with pytest.raises(DataError): ingest('csv', folder, bad, place)
    with pytest.raises(DataError, match='not a folder'): ingest('csv', tmp_path/'nowhere', 'x', place)
    with pytest.raises(DataError, match='no price files'): ingest('csv', place.root.parent, 'x', place)
    with pytest.raises(ConfigError, match='price.*did you mean'): ingest('csv', folder, 'x', place, price='close')
    with pytest.raises(ParameterError, match='until'): ingest('csv', folder, 'x', place, until='soon')
    with pytest.raises(DataError, match='2024-06-26'): ingest('csv', folder, 'x', place, until='2024-06-25')
    with pytest.raises(DataError, match='last bar'): ingest('csv', folder, 'x', place, start='2024-07-01')


# ---- what is doubtful becomes a finding

def test_doubtful_rows_become_findings(tmp_path, place):
    rows = [ROWS[0], ROWS[0], '2024-06-27,0,547,548,546.4,544.65,0,0', ROWS[2], '2024-06-29,1,1,1,1,1,1,0', '2024-07-01,,,,,,,0.5',
        '2024-07-02,0,0,0,0,0,0,0']
    bill = '\n'.join([HEAD, ROWS[0].replace('545.5', '5.2')])
    folder = folder_of(tmp_path, SPY='\n'.join([HEAD, *rows]), GLD=row(1, ROWS[1]), _VIX=SPY, _IRX=bill)
    snapshot = ingest('csv', folder, 'odd', place)
    found = json.loads((place.data/'curated'/'odd'/f'{snapshot.id}.json').read_text())
    got = {(o['rule'], o['id']):o for o in found['findings']}
    assert got['twice', 'SPY']['action']=='repair'
    assert got['no_bar', 'SPY']['sessions']==['2024-07-01', '2024-07-02'] and 'rows 7, 8' in got['no_bar', 'SPY']['evidence']
    assert got['not_a_session', 'SPY']['sessions']==['2024-06-29']
    assert got['zero_price', 'SPY']['sessions']==['2024-06-27'] and got['crossed', 'SPY']['action']=='repair'
    assert got['no_trades', 'SPY']['action']=='flag'
    bars = snapshot.tables.bars.set_index(['id', 'session'])
    assert len(bars)==6 and bars.loc[('SPY', '2024-06-27'), ['open', 'high', 'low']].isna().all()
    paid = snapshot.tables.actions[snapshot.tables.actions.id=='SPY'].set_index('session').value.to_dict()
    assert paid=={pd.Timestamp('2024-06-28'):1.75, pd.Timestamp('2024-07-01'):.5}, 'a dividend of a missing session is still paid'
    assert any('_VIX' in o for o in snapshot.notes) and len(snapshot.tables.rates)==1
    assert snapshot.tables.rates.annual[0]==pytest.approx(365*.052/(360-91*.052), abs=1e-12)


def test_the_basis_is_measured_not_believed(tmp_path, place):
    "The same closes, with adjusted closes that tell four different stories"
    closes,days = [100., 102., 51., 52.],['2024-06-25', '2024-06-26', '2024-06-27', '2024-06-28']
    split = 'ticker,date,kind,value\nAAA,2024-06-27,split,2\n'
    def basis(adjusted, actions='ticker,date,kind,value\n', closes=closes, **options):
        lines = [f'{d},{c},{c},{c},{c},{a},1000,0' for d,c,a in zip(days, closes, adjusted, strict=True)]
        folder = folder_of(tmp_path, AAA='\n'.join([HEAD, *lines]), actions=actions)
        return ingest('csv', folder, 'aaa', place, accept_restated=True, **options)
    split_away,as_sent = [50., 51., 51., 52.],closes
    assert basis(split_away).tables.instruments.basis[0]=='unknown', 'a split that the list does not have'
    traded = basis(split_away, split)
    assert traded.tables.instruments.basis[0]=='as_traded' and traded.tables.bars.close.tolist()==closes
    assert basis(as_sent).tables.instruments.basis[0]=='split_adjusted', 'no split is known, none can be excluded'
    fell = basis(as_sent, split).tables
    assert fell.instruments.basis[0]=="unknown" and fell.bars.close.tolist()==closes, "nothing was divided; AdjClose denies the split"
    put_back = basis(split_away, split, closes=split_away).tables.bars
    assert put_back.close.tolist()==closes and put_back.volume.tolist()==[500., 500., 1000., 1000.]
    assert basis(as_sent, splits_complete=True).tables.instruments.basis[0]=='as_traded'
    assert basis(split_away, prices='adjusted').tables.instruments.basis[0]=='unknown'


def test_a_pay_date_and_an_announcement_are_joined(tmp_path, place):
    head,paid = 'ticker,date,kind,value,pay,known_at','SPY,2024-06-28,dividend,1.7503,2024-07-31,2024-06-26'
    actions = '\n'.join([head, paid, 'SPY,2024-07-15,split,2,,2024-06-27'])
    snapshot = ingest('csv', folder_of(tmp_path, SPY=SPY, actions=actions), 'paid', place)
    a = snapshot.tables.actions.set_index('kind')
    assert str(a.pay['dividend'])[:10]=='2024-07-31' and str(a.known_at['dividend'])[:10]=='2024-06-26' and a.value['dividend']==1.75
    assert snapshot.tables.instruments.basis[0]=='as_traded' and len(snapshot.until('2024-06-27').tables.actions)==2
    assert snapshot.until('2024-06-26').tables.actions.kind.tolist()==['dividend']


# ---- immutable, addressed by content, verified

def market(n=300, seed=0):
    days,rng = sessions_between('2022-01-03', '2023-12-29')[:n].astype('datetime64[us]'),np.random.default_rng(seed)
    def bars(id):
        c = 100*np.exp(rng.normal(0, .01, n).cumsum())
        return pd.DataFrame(dict(id=id, session=days, open=c, high=c*1.01, low=c*.99, close=c, volume=1e6))
    ids = ['AAA', 'BBB', 'Ünï']
    return Tables(bars=pd.concat([bars(o) for o in ids]), symbols=pd.DataFrame(dict(ticker=ids, id=ids, start=days[0], end=pd.NaT)),
        instruments=pd.DataFrame(dict(id=ids, name='', asset_class='', listed=days[0], delisted=pd.NaT, delisting_value=np.nan,
            basis='as_traded')), rates=pd.DataFrame(dict(session=days, annual=.05)))


def test_raw_files_are_kept_and_verified(tmp_path, place):
    folder = folder_of(tmp_path, SPY=SPY)
    ingest('csv', folder, 'spy', place)
    raw, = (place.data/'raw'/'spy').iterdir()
    assert (raw/'SPY.csv').read_bytes()==SPY.encode()
    assert str(tmp_path) not in (raw/'manifest.json').read_text()
    (raw/'SPY.csv').write_text(SPY.replace('544.2', '545.2'))
    with pytest.raises(IntegrityError, match='SPY.csv was changed'): ingest('csv', folder, 'spy', place)


def test_a_new_download_is_a_new_snapshot_and_the_old_one_stays(tmp_path, place):
    first = ingest('csv', folder_of(tmp_path, SPY=SPY), 'spy', place)
    other = folder_of(tmp_path, SPY=SPY.replace('544.2', '544.3'))
    with pytest.raises(Restated, match='2024-06-28: 544.2 → 544.3'): ingest('csv', other, 'spy', place)
    assert open_snapshot('spy', place).id==first.id
    second = ingest('csv', other, 'spy', place, accept_restated=True)
    assert first.id!=second.id==open_snapshot('spy', place).id and open_snapshot(first.id, place).id==first.id
    assert len(list((place.data/'raw'/'spy').iterdir()))==2


def test_who_loses_the_race_has_succeeded_too(place, monkeypatch):
    "Another process publishes the same tables between our last look and our rename"
    publishing = snapshots.publishing
    @contextmanager
    def overtaken(folder):
        with publishing(folder) as new:
            yield new
            monkeypatch.undo()
            publish(market(10), 'm', place)
    monkeypatch.setattr(snapshots, 'publishing', overtaken)
    ours = publish(market(10), 'm', place)
    assert ours.id==open_snapshot('m', place).id and [o.name for o in (place.data/'snapshots').iterdir()]==[ours.id]


@pytest.mark.parametrize('date', ['2010-06-30', '2015-06-30'])
def test_until_is_the_snapshot_that_would_have_been(date, place):
    "Cutting the demo market gives what publishing the cut tables gives; later events are gone"
    demo = open_snapshot('demo', place)
    cut = demo.until(date)
    again,now = publish(cut.tables, 'cut', place, synthetic=True),pd.Timestamp(date)
    assert cut.id==again.id and str(again.last)==date
    t = cut.tables
    assert t.bars.session.max()<=now and (t.actions.known_at<=now).all() and (t.symbols.start<=now).all()
    assert not (t.instruments.delisted>now).any() and not (t.symbols.end>now).any()
    assert set(t.instruments.id[t.instruments.listed.notna()])==set(t.bars.id)==set(t.symbols.id)
    assert t.rates.session.max()<=now and (t.facts.known_at<=now).all()
    assert len(t.instruments)==len(demo.tables.instruments) and t.instruments.listed.isna().any()
    assert demo.until(demo.last).id==demo.id and demo.synthetic and demo.version.synthetic


# ---- real files

def real(*parts):
    path = REAL.joinpath(*parts)
    if not path.exists(): pytest.skip('the folder of real market data is not here; set QUANTETF_REAL_DATA')
    return path


def column(id, name):
    file = real('yahoo_daily', f'{id}.csv')
    cells = pd.read_csv(file, dtype=str)
    return pd.Series([float(o) for o in cells[name]], index=pd.to_datetime(cells.Date))


@pytest.fixture(scope='module')
def us33(tmp_path_factory):
    folder,data = real('yahoo_daily'),tmp_path_factory.mktemp('us33')
    return ingest('csv', folder, 'us33', settings_in(data)),data


def wide(tables, frame, field, fill, **where):
    df = getattr(tables, frame)
    for k,v in where.items(): df = df[df[k]==v]
    out = df.pivot(index='session', columns='id', values=field)
    return out.reindex(index=np.unique(tables.bars.session), columns=tables.instruments.id).fillna(fill).to_numpy(float)


@pytest.mark.real_data
def test_us33_is_what_the_files_are(us33):
    snapshot,data = us33
    t = snapshot.tables
    assert len(t.instruments)==33 and (t.instruments.basis=='split_adjusted').all() and '_IRX' not in set(t.instruments.id)
    assert (str(snapshot.first), str(snapshot.last), snapshot.adjusted_through)==('2005-01-03', '2026-05-01', '2026-05-01')
    spy = t.bars[t.bars.id=='SPY']
    assert len(spy)==len(sessions_between('2005-01-03', '2026-05-01')) and spy.close.tolist()==column('SPY', 'Close').tolist()
    paid = t.actions[t.actions.id=='SPY'].set_index('session').value
    for day,value in {'2018-12-21':1.4354, '2020-09-18':1.3392, '2020-12-18':1.58}.items(): assert paid[day]==pytest.approx(value, abs=6e-4)
    report = json.loads((data/'curated'/'us33'/f'{snapshot.id}.json').read_text())
    found = {(o['rule'], o['id']):o for o in report['findings']}
    assert found['zero_price', 'SPLG']['sessions']==['2009-08-18', '2009-11-18', '2009-12-24']
    assert found['missing_sessions', 'SPLG']['sessions']==['2025-10-24']
    assert len(found['no_trades', 'USFR']['sessions'])==751
    assert {(o['rule'], o['id']) for o in report['findings'] if o['action'] not in ('flag', 'measure')}=={
        ('zero_price', 'SPLG'), ('stale', 'USFR'), ('outlier', 'USFR')}
    frozen = set(found['stale', 'USFR']['sessions'])
    run = set(sessions_between('2016-04-06', '2016-06-08').astype(str))
    assert len(run)==45 and len(run & frozen)==41, 'what was traded in between stands, the other equal closes are no prices'
    assert not [o for o in found.values() if o['id']=='BIL' and o['rule']!='price_basis'], 'equal closes of a bill fund are true'
    assert found['not_of_their_day', 'SQQQ'] and {o['basis'] for o in report['eras']}=={'split_adjusted'}
    assert {o['id'] for o in report['eras']}==set(t.instruments.id)


@pytest.mark.real_data
def test_us33_total_return_against_the_vendors(us33):
    "Forward total return and the vendor's backward one differ by their rules, about 4.5 bp per dividend of 1.5 %, and by no more"
    t = us33[0].tables
    close,cash = wide(t, 'bars', 'close', np.nan),wide(t, 'actions', 'value', 0., kind='dividend')
    tr = total_return(close, cash, np.ones(close.shape))
    ids,last = t.instruments.id.tolist(),tr[-1]
    for id in ids:
        adjusted = column(id, 'AdjClose')
        never_paid = id in ('GLD', 'SLV', 'USO')
        assert last[ids.index(id)]==pytest.approx(adjusted.iloc[-1]/adjusted.iloc[0], rel=1e-9 if never_paid else .02), id
    assert last[ids.index('GLD')]==pytest.approx(9.8368, abs=1e-4)


@pytest.mark.real_data
def test_us33_rates(us33):
    rates,quote = us33[0].tables.rates.set_index('session').annual,column('_IRX', 'Close')
    assert len(rates)==5361 and rates['2024-06-28']==pytest.approx(365*quote['2024-06-28']/100/(360-.91*quote['2024-06-28']), abs=1e-12)
    assert rates['2024-06-28']==annual_rate(quote['2024-06-28'])>quote['2024-06-28']/100 and rates.min()<0, 'bills were above par in 2020'


@pytest.mark.real_data
def test_us33_names_no_path_of_this_machine(us33):
    _,data = us33
    for file in data.rglob('*.json'): assert str(REAL) not in file.read_text() and str(data) not in file.read_text(), file.name


@pytest.mark.real_data
def test_adjusted_closes_are_taken_as_they_are(tmp_path):
    snapshot = ingest('csv', real('yahoo_daily'), 'golden', settings_in(tmp_path), prices='adjusted')
    t = snapshot.tables
    assert (t.instruments.basis=='total_return').all() and not len(t.actions) and snapshot.adjusted_through==''
    for id in 'SPY', 'XLF', 'SQQQ': assert t.bars[t.bars.id==id].close.tolist()==column(id, 'AdjClose').tolist()
    spy = t.bars[t.bars.id=='SPY']
    assert (spy.open/spy.close).to_numpy()==pytest.approx((column('SPY', 'Open')/column('SPY', 'Close')).to_numpy(), rel=1e-12)


@pytest.mark.real_data
def test_the_newer_layout_and_its_unlisted_dividends(tmp_path):
    place = settings_in(tmp_path)
    close,adjusted = (ingest('csv', real('yahoo_daily_eem'), f'eem_{o}', place, prices=o) for o in ('close', 'adjusted'))
    assert (str(close.first), str(close.last))==('2003-04-14', '2025-09-26')
    assert close.tables.instruments.basis[0]=='split_adjusted' and adjusted.tables.instruments.basis[0]=='total_return'
    assert len(close.tables.actions)==45, 'dividends of no list, from the steps of the adjusted close'
    assert adjusted.tables.bars.close.iloc[0]==7.340263366699219 and close.tables.bars.close.iloc[0]==11.222222328186035


@pytest.mark.real_data
def test_a_supplied_split_gives_back_the_traded_prices(tmp_path):
    "IWM split 2:1 on 2005-06-09: Yahoo's closes before it are halves, and become what was traded according to another source"
    archive = zipfile.ZipFile(real('lean', 'iwm.zip'))
    traded = pd.read_csv(io.BytesIO(archive.read('iwm.csv')), header=None, index_col=0)[4]/10_000
    traded.index = pd.to_datetime(traded.index.str[:8])
    yahoo,split = real('yahoo_daily', 'IWM.csv').read_bytes(),'ticker,date,kind,value\nIWM,2005-06-09,split,2\n'
    folder = folder_of(tmp_path, IWM=yahoo, actions=split)
    snapshot = ingest('csv', folder, 'iwm', settings_in(tmp_path/'data'))
    ours = snapshot.tables.bars.set_index('session').close
    both = pd.concat([ours, traded], axis=1, join='inner').loc[:'2010']
    off = (both.iloc[:,0]/both.iloc[:,1] - 1).abs()
    assert snapshot.tables.instruments.basis[0]=='as_traded' and len(both)>1400
    assert off.loc[:'2005-06-08'].max()<.02 and off.median()<1e-3, 'closing prices of two sources, not of two units'
    assert ours['2005-06-08']>1.9*ours['2005-06-09']


@pytest.mark.real_data
def test_vintages_of_one_series_are_different_snapshots(tmp_path):
    place = settings_in(tmp_path)
    def of(day): return ingest('csv', real('yahoo_vintages', day), f'v{day[:8]}', place)
    before,after,hole = of('20250919_pre_exdiv'),of('20250920_post_exdiv'),of('20250917_missing_0915')
    assert len({before.id, after.id, hole.id})==3
    found = json.loads((tmp_path/'curated'/'v20250917'/f'{hole.id}.json').read_text())['findings']
    assert {o['id'] for o in found if o['rule']=='missing_sessions' and '2025-09-15' in o['sessions']}


@pytest.mark.real_data
def test_raw_files_can_be_read_again_with_the_same_result(us33):
    snapshot,data = us33
    raw, = (data/'raw'/'us33').iterdir()
    tables,_ = curate(CsvFolder().parse(read_raw(raw)))
    assert make_record(tables, 'again')['id']==snapshot.id
    assert keep_raw(CsvFolder(), str(real('yahoo_daily')), 'us33', settings_in(data))==raw


def test_an_old_rate_and_actions_outside_a_funds_life_are_said(tmp_path, place):
    days = [str(o) for o in sessions_between('2024-01-02', '2024-03-28')]
    lines = [f'{d},{100+i},{101+i},{99+i},{100+i},{100+i},1000,0' for i,d in enumerate(days)]
    bill = '\n'.join([HEAD, f'{days[0]},5,5,5,5,5,0,0'])
    actions = 'ticker,date,kind,value\nAAA,2023-12-15,dividend,0.3\nAAA,2023-11-15,split,2\n'
    made = ingest('csv', folder_of(tmp_path, AAA='\n'.join([HEAD, *lines]), _IRX=bill, actions=actions), 'life', place)
    found = {o['rule']:o for o in json.loads((place.data/'curated'/'life'/f'{made.id}.json').read_text())['findings']}
    assert found['outside_life']['sessions']==['2023-11-15', '2023-12-15'] and not len(made.tables.actions)
    assert '60 sessions before the last bar' in found['old_rates']['evidence']
    assert made.tables.bars.close.tolist()[:2]==[100., 101.]


def test_a_cut_is_what_a_file_that_ended_there_would_have_given(tmp_path, place):
    "A wrong close on the day of the cut is taken back the next morning, which nobody knew"
    days = [str(o) for o in sessions_between('2023-01-03', '2024-03-28')]
    closes = 100 + np.sin(np.arange(len(days)))*.5
    closes[-2] = 150
    lines = [f'{d},{c:.2f},{c+.1:.2f},{c-.1:.2f},{c:.2f},{c:.2f},1000,0' for d,c in zip(days, closes, strict=True)]
    def of(name, rows, **cut): return ingest('csv', folder_of(tmp_path, AAA='\n'.join([HEAD, *rows])), name, place, **cut).tables.bars
    assert '2024-03-27' not in set(of('whole', lines).session.astype(str))
    pd.testing.assert_frame_equal(of('cut', lines, until='2024-03-27'), of('shorter', lines[:-1]))
