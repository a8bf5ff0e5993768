"""Snapshots that cannot be half written, changed or read ahead: kills, full disks, flipped bytes, and what a View can reach"""
import errno
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as rules
from hypothesis import strategies as st

import quantetf.data.chunks as chunks
from quantetf.calendars import sessions_between
from quantetf.core import DataError, DatasetVersion, IntegrityError, Settings
from quantetf.data.actions import total_return
from quantetf.data.layout import FIELDS, Cache
from quantetf.data.schema import SchemaError, Tables
from quantetf.data.snapshot import Snapshot, datasets, listing, make_record, open_snapshot, publish, verify_all, verify_snapshot
from quantetf.data.view import View, freshness, load_panel, survivorship
from quantetf.store import content_hash

ROOT = Path(__file__).resolve().parent.parent


def settings_in(folder): return Settings(folder, folder, folder, folder)


@pytest.fixture
def home(tmp_path): return settings_in(tmp_path/'data')


def market(n=300, seed=0, actions=None):
    "Three funds over the turn of a year, with dividends and a split"
    days,rng = sessions_between('2022-12-01', '2024-06-28')[:n].astype('datetime64[us]'),np.random.default_rng(seed)
    def bars(id):
        c = (100*np.exp(rng.normal(0, .01, n).cumsum())).round(2)
        return pd.DataFrame(dict(id=id, session=days, open=c, high=c*1.01, low=c*.99, close=c, volume=1e6))
    ids = ['AAA', 'BBB', 'Ünï']
    paid = pd.DataFrame(dict(id=['AAA', 'AAA', 'BBB'], session=days[[5, 8, 8]], kind=['dividend', 'split', 'dividend'], value=[.5, 2, .3]))
    paid = paid.assign(pay=pd.NaT, known_at=paid.session)
    return Tables(bars=pd.concat([bars(o) for o in ids]), symbols=pd.DataFrame(dict(ticker=ids, id=ids, start=days[0], end=pd.NaT)),
        instruments=pd.DataFrame(dict(id=ids, name='', asset_class='', listed=days[0], delisted=pd.NaT, delisting_value=np.nan,
            basis='as_traded')), rates=pd.DataFrame(dict(session=days, annual=.05)), actions=paid if actions is None else actions)


def changed(t, **tables): return Tables(**(dict(t.items()) | tables))
def same(a, b):
    for k,df in a.items(): pd.testing.assert_frame_equal(df, getattr(b, k))


# ---- the id

def test_the_id_is_the_same_on_every_machine():
    "A literal: whoever changes what an id is made from has to change it here, and knows that all ids change"
    assert make_record(market(40), 'm')['id']=='2c56af49705a3f2ec5f7d4a70157f10f512d06a1ef9e9362fcfe2aaf5d790ad6'


@rules(max_examples=25, deadline=None)
@given(order=st.permutations(range(30)), unit=st.sampled_from(['s', 'ms', 'us', 'ns']), text=st.sampled_from([object, 'str', 'category']),
    columns=st.permutations(['id', 'session', 'open', 'high', 'low', 'close', 'volume']))
def test_the_id_does_not_depend_on_order_units_or_kinds_of_text(order, unit, text, columns):
    t = market(10)
    bars = t.bars.iloc[list(order)][columns].astype({'session':f'datetime64[{unit}]', 'id':text})
    assert make_record(changed(t, bars=bars), 'x')['id']==make_record(t, 'y')['id']


def test_every_table_counts():
    t = market(40)
    fact = pd.DataFrame(dict(id=['AAA'], name='fee', effective=t.bars.session[0], known_at=t.bars.session[0], value='20'))
    others = [changed(t, bars=t.bars.assign(volume=t.bars.volume+1)), changed(t, actions=t.actions[1:]), changed(t, rates=t.rates[1:]),
        changed(t, instruments=t.instruments.assign(name='x')), changed(t, symbols=t.symbols.assign(ticker=['A', 'B', 'C'])),
        changed(t, facts=fact), changed(t, bars=t.bars.assign(id=t.bars.id.replace({'AAA':'BBB', 'BBB':'AAA'})))]
    assert len({make_record(o, 'm')['id'] for o in (t, *others)})==len(others)+1


def test_another_library_writes_other_bytes_and_the_same_id(home, monkeypatch):
    made = publish(market(40), 'm', home)
    def otherwise(df):
        import io
        sink = io.BytesIO()
        df.to_parquet(sink, index=False, compression='gzip')
        return sink.getvalue()
    monkeypatch.setattr(chunks, '_packed', otherwise)
    other = settings_in(home.data/'other')
    again = publish(market(40), 'm', other)
    assert again.id==made.id
    same(again.tables, made.tables)
    files = [{o.name for o in (s.data/'chunks').iterdir()} for s in (home, other)]
    assert not files[0] & files[1] and {o.rsplit('-', 1)[0] for o in files[0]}=={o.rsplit('-', 1)[0] for o in files[1]}
    before = {o.name:o.stat().st_mtime_ns for o in (home.data/'chunks').iterdir()}
    assert publish(market(40), 'm2', home).id==made.id, 'what is there is proved by its bytes, and not written again'
    assert before=={o.name:o.stat().st_mtime_ns for o in (home.data/'chunks').iterdir()}


# ---- an update writes what is new

def test_an_update_rewrites_no_history(home):
    t = market(300)
    last = t.bars.session.max()
    first = publish(t.until(last - pd.Timedelta(days=1)), 'm', home)
    before = {o.name:(o.stat().st_ino, o.stat().st_mtime_ns) for o in (home.data/'chunks').iterdir()}
    second = publish(t, 'm', home)
    after = {o.name:(o.stat().st_ino, o.stat().st_mtime_ns) for o in (home.data/'chunks').iterdir()}
    assert {k:after[k] for k in before}==before
    assert sorted(k.rsplit('-', 2)[0] for k in after.keys()-before.keys())==['bars-2024', 'rates-all']
    assert first.id!=second.id==open_snapshot('m', home).id
    same(open_snapshot(first.id, home).tables, t.until(last - pd.Timedelta(days=1)))
    same(open_snapshot(second.id, home).tables, t)


# ---- verified on opening

def files_of(home, made):
    chunks_of = [made.chunks.path(e) for parts in made.chunks.entries.values() for e in parts.values()]
    return [*chunks_of, home.data/'snapshots'/made.id/'snapshot.json']


def test_every_flipped_byte_is_named(home):
    made = publish(market(40), 'm', home)
    rng = np.random.default_rng(1)
    for file in files_of(home, made):
        good = file.read_bytes()
        for i in {0, len(good)-1, *rng.integers(0, len(good), 25).tolist()}:
            file.write_bytes(good[:i] + bytes([good[i] ^ 4]) + good[i+1:])
            with pytest.raises(IntegrityError, match=file.name): open_snapshot('m', home)
            assert file.name in verify_snapshot('m', home)[0]
        file.write_bytes(good[:-1])
        with pytest.raises(IntegrityError, match=file.name): open_snapshot('m', home)
        file.write_bytes(good)
        assert open_snapshot('m', home).id==made.id


def test_a_missing_chunk_is_named_and_comes_back(home):
    made = publish(market(40), 'm', home)
    for file in files_of(home, made)[:-1]:
        file.unlink()
        with pytest.raises(IntegrityError, match=f'{file.name} is missing.*ingest again'): open_snapshot('m', home)
        assert publish(market(40), 'm', home).id==made.id, 'publishing again writes what is missing'
    (home.data/'snapshots'/made.id/'snapshot.json').unlink()
    with pytest.raises(IntegrityError, match='snapshot.json'): open_snapshot('m', home)


def test_a_file_that_changes_after_opening_is_not_read(home):
    publish(market(40), 'm', home)
    opened = open_snapshot('m', home)
    path = opened.chunks.path(opened.chunks.entries['bars']['2023'])
    good = path.read_bytes()
    path.write_bytes(good[:100] + bytes([good[100]^1]) + good[101:])
    for read in (lambda: opened.tables, lambda: list(opened.bars(['id', 'close'])), lambda: load_panel(opened)._fields['close']):
        with pytest.raises(IntegrityError, match=path.name): read()
    path.write_bytes(good)
    assert len(opened.tables.bars)==120


EDITS = dict(notes=['prices were checked'], exchange='XNAS', id='0'*64, tables={}, files={}, synthetic=True)


@pytest.mark.parametrize('edit', [{k:v} for k,v in EDITS.items()], ids=EDITS)
def test_a_record_that_was_edited_with_care_is_refused(home, edit):
    "Even with a record hash that was made anew"
    from quantetf.data.snapshot import _as_bytes
    made = publish(market(40), 'm', home)
    file = home.data/'snapshots'/made.id/'snapshot.json'
    record = json.loads(file.read_text()) | edit
    if 'notes' not in edit: record['record'] = content_hash({k:v for k,v in record.items() if k!='record'})
    file.write_bytes(_as_bytes(record))
    with pytest.raises(IntegrityError, match='snapshot.json was changed'): open_snapshot('m', home)
    assert listing(home).basis.tolist()==['DAMAGED, see `quantetf snapshot verify`'] and list(verify_all(home).values())[0]


def test_a_chunk_cannot_lead_out_of_its_folder(home):
    made = publish(market(40), 'm', home)
    made.chunks.entries['bars']['2023']['file'] = '../datasets/m.json'
    with pytest.raises(DataError, match='leads out of'): made.chunks.read('bars', '2023')


def test_an_earlier_schema_is_named(home):
    folder = home.data/'snapshots'/('1'*64)
    folder.mkdir(parents=True)
    (folder/'snapshot.json').write_text(json.dumps(dict(schema='quantetf.snapshot/1', id='1'*64)))
    with pytest.raises(IntegrityError, match='earlier version of QuantETF.*ingest again'): open_snapshot('1'*64, home)


def test_verify_reads_values_and_not_only_bytes(home):
    "A chunk whose file and record agree, and whose numbers are not those of the id"
    made = publish(market(40), 'm', home)
    other = chunks._packed(market(40, seed=1).bars[market(40, seed=1).bars.session<'2023'])
    from hashlib import sha256
    entry = made.chunks.entries['bars']['2022']
    (home.data/'chunks'/entry['file']).write_bytes(other)
    bad = chunks.Chunks(home.data/'chunks', {'bars':{'2022':entry | dict(bytes=sha256(other).hexdigest())}})
    assert bad.damaged()==[]
    with pytest.raises(IntegrityError, match='reads differently'): bad.frame('bars')


def test_invalid_tables_are_never_published(home):
    t = dict(market(10).items())
    bars = t['bars']
    for bad in (dict(bars=bars.assign(close=0.)), dict(instruments=t['instruments'][1:]), dict(rates=t['rates'].assign(annual=5.)),
        dict(bars=pd.concat([bars, bars.head(1)])), dict(bars=bars.assign(low=bars.high + 1))):
        with pytest.raises(SchemaError): publish(Tables(**(t | bad)), 'bad', home)
    with pytest.raises(DataError, match='no bars'): publish(Tables(bars=None), 'bad', home)
    assert not (home.data/'snapshots').exists() and not (home.data/'chunks').exists()


# ---- killed, full, read-only

STEPS = (os, 'fsync'), (os, 'replace'), (os, 'rename'), (Path, 'write_bytes'), (Path, 'write_text'), (Path, 'mkdir')


def every_step(monkeypatch, when, what):
    "Call `what(name, args)` before the `when`-th step of writing, counted from 0; the number of steps so far is in the result"
    count = []
    for owner,name in STEPS:
        real = getattr(owner, name)
        def step(*args, _real=real, _name=name, **kwargs):
            count.append(_name)
            if len(count)-1==when: what(_name, args)
            return _real(*args, **kwargs)
        monkeypatch.setattr(owner, name, step)
    return count


def consistent(home, base, *ids):
    "What is published is whole, whatever happened"
    assert open_snapshot('base', home).id==base
    for name in datasets(home):
        if name!='demo': assert verify_snapshot(name, home)==[] and open_snapshot(name, home).id in (base, *ids)


def test_a_disk_that_is_full_at_any_step(home, monkeypatch):
    base,failures,ids = publish(market(40), 'base', home).id,0,[]
    for k in range(1000):
        t = market(40, seed=k+1)
        ids.append(make_record(t, 'm')['id'])
        with monkeypatch.context() as m:
            def full(name, args): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            count = every_step(m, k, full)
            try: publish(t, 'm', home)
            except DataError as e: failures += 1; assert 'free some space' in str(e) and 'No space left' in str(e), str(e)
            else:
                assert len(count)<=k, f'{count[k]} failed, and nobody noticed'
                break
        consistent(home, base, *ids)
        assert not list(home.data.rglob('*.tmp')), 'nothing is left over'
        if k%5==0: assert publish(t, 'm', home).id==ids[-1], 'once there is space it can be done again'
    assert failures>20 and not any(verify_all(home).values())
    same(open_snapshot('m', home).tables, t)


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
def test_a_kill_at_any_step(home, monkeypatch):
    base,killed,ids = publish(market(40), 'base', home).id,0,[]
    for k in range(1000):
        t = market(40, seed=k+1)
        ids.append(make_record(t, 'm')['id'])
        child = os.fork()
        if not child:
            try:
                def half_and_gone(name, args):
                    if name=='write_bytes': open(args[0], 'wb').write(args[1][:len(args[1])//2])
                    os.kill(os.getpid(), signal.SIGKILL)
                every_step(monkeypatch, k, half_and_gone)
                publish(t, 'm', home)
            finally: os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])==0: break
        killed += 1
        consistent(home, base, *ids)
        for o in home.data.rglob('*.tmp'):
            assert o.name.startswith('.')
            os.utime(o, (time.time()-90_000,)*2)
        if k%5==0: assert publish(t, 'm', home).id==ids[-1]
    assert killed>20 and open_snapshot('m', home).id==ids[-1] and not any(verify_all(home).values())
    same(open_snapshot('m', home).tables, t)
    publish(market(40, seed=2000), 'after', home)
    left = [o for o in home.data.rglob('*.tmp')]
    assert not left, 'what killed processes left behind is swept a day later'


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
def test_a_kill_at_any_moment(home):
    base,t = publish(market(), 'base', home).id,[market(seed=k) for k in range(1, 13)]
    start = time.monotonic()
    publish(t[0], 'm', home)
    usual,rng,killed = time.monotonic()-start,np.random.default_rng(5),0
    for o in t[1:]:
        child = os.fork()
        if not child:
            try: publish(o, 'm', home)
            finally: os._exit(0)
        time.sleep(rng.uniform(0, usual))
        os.kill(child, signal.SIGKILL)
        killed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])!=0
        assert open_snapshot('base', home).id==base and open_snapshot('m', home).tables is not None
    assert killed and not any(verify_all(home).values())


@pytest.mark.parametrize('where', ['data', 'data/chunks', 'data/snapshots', 'data/datasets'])
def test_a_file_in_place_of_a_folder(tmp_path, where):
    (tmp_path/where).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path/where).write_text('')
    home = settings_in(tmp_path/'data')
    with pytest.raises(DataError, match='cannot be written .*move the file that stands in the way'): publish(market(10), 'm', home)


CURES = (errno.EROFS, 'choose another place'), (errno.EACCES, 'allow writing there'), (errno.EIO, 'check the disk')


@pytest.mark.parametrize('number,cure', CURES)
def test_a_folder_that_may_not_be_written_to(home, monkeypatch, number, cure):
    base = publish(market(10), 'base', home).id
    def refused(*args, **kwargs): raise OSError(number, os.strerror(number))
    monkeypatch.setattr(Path, 'write_bytes', refused)
    monkeypatch.setattr(Path, 'mkdir', refused)
    with pytest.raises(DataError, match=cure): publish(market(10, seed=1), 'm', home)
    monkeypatch.undo()
    consistent(home, base)


# ---- many at once

PUBLISH = '''
import sys; sys.path.insert(0, {tests!r})
from pathlib import Path
from test_snapshots import market, settings_in
from quantetf.data.snapshot import publish
sys.stdin.readline()
for k in range(3): print(publish(market(seed=k), 'm', settings_in(Path({data!r}))).id)
'''


def test_processes_that_publish_at_once_agree(tmp_path):
    code = PUBLISH.format(tests=str(ROOT/'tests'), data=str(tmp_path/'data'))
    runs = [subprocess.Popen([sys.executable, '-c', code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)]
    for o in runs: o.stdin.write('\n'); o.stdin.flush()
    ended = [o.communicate(timeout=120) for o in runs]
    assert all(o.returncode==0 for o in runs), ended
    want = [make_record(market(seed=k), 'here')['id'] for k in range(3)]
    assert {tuple(o.split()) for o,_ in ended}=={tuple(want)}
    home = settings_in(tmp_path/'data')
    assert sorted(o.name for o in (home.data/'snapshots').iterdir())==sorted(want) and not any(verify_all(home).values())


# ---- panels: laid out, cached, and never trusted

def panels_of(snapshot): return load_panel(snapshot),load_panel(snapshot)


def bits(panel): return {k:v.tobytes() for k,v in panel._fields.items()}


def test_a_panel_has_the_same_bits_from_memory_disk_and_cache(home):
    made,t = publish(market(), 'm', home),market()
    in_memory = bits(load_panel(made.until(made.last)))
    laid_out = bits(load_panel(open_snapshot('m', home)))
    cached = load_panel(open_snapshot('m', home))
    assert laid_out==in_memory==bits(cached) and set(laid_out)==set(FIELDS)
    f = cached._fields
    assert all(o.base is not None and not o.flags.writeable for o in f.values()), 'mapped'
    assert f['tr'].tobytes()==total_return(f['close'], f['cash'], f['split']).tobytes()
    wide = t.bars.pivot(index='session', columns='id', values='volume').to_numpy()
    assert f['volume'].tobytes()==wide.tobytes()


def test_only_what_is_touched_is_laid_out(home):
    publish(market(), 'm', home)
    panel = load_panel(open_snapshot('m', home))
    assert not list((home.data/'cache').rglob('*.f8'))
    panel.view('2023-06-30').lag('volume')
    assert [o.name.split('-')[0] for o in (home.data/'cache').rglob('*.f8')]==['volume']


@pytest.mark.parametrize('damage', ['flip', 'cut', 'swap', 'gone', 'file'])
def test_a_damaged_cache_is_made_again(home, damage):
    publish(market(), 'm', home)
    good = bits(load_panel(open_snapshot('m', home)))
    folder, = (home.data/'cache'/'panels').iterdir()
    files = sorted(folder.glob('*.f8'))
    contents = [o.read_bytes() for o in files]
    for i,o in enumerate(files):
        b = contents[i]
        if damage=='flip': o.write_bytes(b[:len(b)//2] + bytes([b[len(b)//2]^1]) + b[len(b)//2+1:])
        elif damage=='cut': o.write_bytes(b[:-40])
        elif damage=='swap': o.write_bytes(contents[i-1])
        else: o.unlink()
    (folder/'sessions.json').write_text('{"hash": 1}')
    if damage=='file':
        (folder/'sessions.json').unlink()
        folder.rmdir()
        folder.write_text('')
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        panel = load_panel(open_snapshot('m', home))
        assert bits(panel)==good
        view = load_panel(open_snapshot('m', home)).view('2023-06-30').window('tr', 20)
    assert view.tobytes()==panel.view('2023-06-30').window('tr', 20).tobytes()
    says = dict(flip='was damaged', cut='was damaged', swap='was damaged', gone=None, file='cannot be written')[damage]
    assert bool(said)==bool(says) and all(says in str(o.message) for o in said), [str(o.message) for o in said]
    if damage!='file': assert [o.read_bytes() for o in sorted(folder.glob('*.f8'))]==contents


def misplaced(home, move):
    "What is warned of when files of the cache have been moved by `move(folder)`; the numbers are right"
    publish(market(), 'm', home)
    good = bits(load_panel(open_snapshot('m', home)))
    folder, = (home.data/'cache'/'panels').iterdir()
    before = sorted(o.name for o in folder.iterdir())
    move(folder)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        assert bits(load_panel(open_snapshot('m', home)))==good
    assert before==sorted(o.name for o in folder.iterdir())
    return {str(o.message).rpartition('/')[2].split('-')[0] for o in said if 'was damaged' in str(o.message)}


def test_a_field_under_the_name_of_another_is_not_taken(home):
    def rename(folder):
        (close,),(volume,) = folder.glob('close-*'),folder.glob('volume-*')
        close.unlink()
        volume.rename(folder/volume.name.replace('volume', 'close'))
    assert misplaced(home, rename)=={'close'}


def test_the_cache_of_another_snapshot_is_not_taken(home):
    other = settings_in(home.data/'other')
    bits(load_panel(publish(market(seed=1), 'm', other)))
    def swap(folder):
        for o in folder.glob('*.f8'): o.unlink()
        theirs, = (other.data/'cache'/'panels').iterdir()
        for o in theirs.iterdir(): (folder/o.name).write_bytes(o.read_bytes())
    assert misplaced(home, swap)==set(FIELDS)


def test_the_shape_is_part_of_a_cached_field(tmp_path):
    "The same bytes as another number of sessions and instruments are another field"
    a = np.arange(12.).reshape(3, 4)
    Cache(tmp_path, a.shape, 'key').write('close', a)
    assert Cache(tmp_path, a.shape, 'key').read('close').whole().tobytes()==a.tobytes()
    with pytest.warns(UserWarning, match='was damaged'): assert Cache(tmp_path, (4, 3), 'key').read('close') is None


def test_the_sessions_of_another_snapshot_are_not_taken(home):
    def other(folder):
        kept = json.loads((folder/'sessions.json').read_text())
        days = [o+1 for o in kept['sessions']]
        (folder/'sessions.json').write_text(json.dumps(kept | dict(sessions=days, hash=content_hash(days))))
    assert misplaced(home, other)==set()


def test_sessions_need_no_opening_times():
    "These are slow to make; `sessions_between` uses the library's lists of holidays, and gets the library's sessions"
    code = ("import exchange_calendars as ec; get,ec.get_calendar = ec.get_calendar,None\n"
        "from quantetf.calendars import sessions_between\ndays = sessions_between('1990-01-01', '2045-12-31', {0!r})\n"
        "assert (days==get({0!r}, start='1990-01-01', end='2045-12-31').sessions.to_numpy().astype('datetime64[D]')).all()")
    for exchange in 'XNYS', 'XLON': subprocess.run([sys.executable, '-c', code.format(exchange)], check=True, cwd=ROOT)


def acting(t, day, kind='dividend'):
    "The market with one more action, on a day"
    more = pd.DataFrame(dict(id=['AAA'], session=pd.Timestamp(day), kind=kind, value=2., pay=pd.NaT, known_at=pd.Timestamp(day)))
    return changed(t, actions=pd.concat([t.actions, more], ignore_index=True))


@pytest.mark.parametrize('day,why', [('2022-11-30', 'before the first bar, 2022-12-01'), ('2000-01-01', 'before the first bar'),
    ('2022-12-10', 'not a session of XNYS'), ('2022-12-26', 'not a session of XNYS')])
@pytest.mark.parametrize('kind', ['dividend', 'split'])
def test_an_action_that_could_not_be_laid_out_is_not_published(home, day, why, kind):
    with pytest.raises(DataError, match=f'{kind} of AAA on {day}, .*{why}'): publish(acting(market(40), day, kind), 'm', home)
    assert not (home.data/'datasets'/'m.json').exists()


@pytest.mark.parametrize('kind', ['dividend', 'split'])
def test_an_early_action_does_not_spoil_a_panel(home, kind):
    "Nor one that was announced for a time after the last bar"
    t = market(40)
    want = bits(load_panel(publish(t, 'm', home)))
    assert bits(load_panel(publish(acting(t, '2023-12-20', kind), 'm', home)))==want
    early = Snapshot(make_record(t, 'e'), 'e', lambda: acting(t, '2022-11-30', kind))
    panel = load_panel(early)
    assert bits(panel)==want and not panel.view('2023-01-03').closed().any()


def test_total_return_of_a_cut_snapshot_is_the_beginning_of_the_whole(home):
    announced = market().actions.assign(known_at=market().bars.session[2])
    made = publish(market(actions=announced), 'm', home)
    whole = load_panel(made)._fields
    for n in (3, 6, 9, 200):
        day = np.unique(made.tables.bars.session)[n-1]
        part = load_panel(made.until(str(day)[:10]))._fields
        for k in FIELDS: assert part[k].tobytes()==whole[k][:n].tobytes(), (k, n)


def test_everything_paid_is_cash(home):
    "Dividends, capital gains and spin-offs, per new share where there is a split on that day"
    days = np.unique(market(30).bars.session)
    rows = [('AAA', 8, 'dividend', .5), ('AAA', 8, 'capital_gain', .25), ('AAA', 8, 'split', 2.), ('BBB', 9, 'spinoff', 7.)]
    acts = pd.DataFrame([(i, days[k], kind, v) for i,k,kind,v in rows], columns=['id', 'session', 'kind', 'value'])
    acts = acts.assign(pay=[days[12], pd.NaT, pd.NaT, pd.NaT], known_at=acts.session)
    panel = load_panel(publish(market(30, actions=acts), 'm', home))
    f,e = panel._fields,panel._events
    assert f['cash'][8].tolist()==[.75, 0, 0] and f['cash'][9].tolist()==[0, 7, 0] and f['split'][8].tolist()==[2, 1, 1]
    assert f['tr'][8,0]==pytest.approx(f['tr'][7,0]*2*(f['close'][8,0]+.75)/f['close'][7,0], rel=1e-15)
    assert f['tr'][9,1]==pytest.approx(f['tr'][8,1]*(f['close'][9,1]+7)/f['close'][8,1], rel=1e-15)
    paid = sorted(zip(e.ex.tolist(), e.pay.tolist(), e.col.tolist(), e.cash.tolist(), strict=True))
    assert paid==[(8, 8, 0, .25), (8, 12, 0, .5), (9, 9, 1, 7.)]
    assert panel.view(days[8].astype('datetime64[D]')).facts('capital_gain')[0,0]==.25


def test_a_long_hole_has_no_daily_return(home):
    t = market(200)
    days = np.unique(t.bars.session)
    def without(a, b): return changed(t, bars=t.bars[(t.bars.id!='AAA') | ~t.bars.session.isin(days[a:b])])
    for gone,bridged in ((20, True), (21, False)):
        f = load_panel(publish(without(50, 50+gone), 'm', home))._fields
        k = 50+gone
        assert np.isnan(f['ret'][k,0])!=bridged and np.isfinite(f['ret'][k+1,0]) and np.isnan(f['ret'][49:k,0]).sum()==gone
        assert f['tr'][k,0]==pytest.approx(f['tr'][49,0]*f['close'][k,0]/f['close'][49,0], rel=1e-12), 'total return goes on'


def test_freshness_and_survivors_of_the_demo(data):
    demo = open_snapshot('demo', settings_in(data))
    t,panel = demo.tables,load_panel(demo)
    s = survivorship(panel, '2010-01-04', '2024-06-28')
    i = t.instruments
    alive = set(i.id[(i.listed<='2010-01-04') & ~(i.delisted<'2010-01-04')])
    assert set(s.alive)==alive and set(s.dead)==set(i.id[i.delisted<='2024-06-28']) & alive and s.dead and not s.warning()
    only = survivorship(panel, '2010-01-04', '2024-06-28', ids=sorted(alive-set(s.dead)))
    assert not only.dead and 'survivors' in only.warning()
    f = freshness(panel, '2024-06-28')
    assert set(f.id)==set(i.id[(i.listed<='2024-06-28') & ~(i.delisted<='2024-06-28')])
    last = t.bars[t.bars.session<='2024-06-28'].groupby('id').session.max().dt.strftime('%Y-%m-%d')
    assert f.set_index('id')['last'].to_dict()==last[f.id].to_dict()
    assert (f.behind==[len(sessions_between(o, '2024-06-28'))-1 for o in f['last']]).all()
    late = freshness(panel, '2026-01-07')
    assert late.behind.min()==len(sessions_between(demo.last, '2026-01-07'))-1>0


# ---- what a View can reach

LATER,DAY = 987654321.,'2023-06-30'


def secret_market():
    "Every number after a day is one that occurs nowhere before, and a fact is learned later"
    t = market()
    b,late = t.bars,t.bars.session>DAY
    bars = b.assign(**{k:b[k].mask(late, LATER) for k in ('open', 'high', 'low', 'close', 'volume')})
    facts = pd.DataFrame(dict(id=['AAA', 'BBB'], name='category', effective='2022-12-01', known_at=['2022-12-01', '2023-12-01'],
        value=['early', str(LATER)]))
    more = pd.DataFrame(dict(id=['AAA'], session=pd.Timestamp('2023-08-01'), kind='dividend', value=LATER, pay=pd.NaT,
        known_at=pd.Timestamp('2023-07-20')))
    rates = t.rates.assign(annual=t.rates.annual.where(t.rates.session<=DAY, .99))
    return changed(t, bars=bars, facts=facts, actions=pd.concat([t.actions, more]), rates=rates)


def reachable(start):
    "Every array that can be had from an object by public attributes, items, and the bases of arrays"
    seen,todo = {},[('view', start)] # Objects are kept, lest a new one gets the id of one that is gone
    while todo:
        path,o = todo.pop()
        if id(o) in seen or isinstance(o, (str, bytes, int, float, type, np.dtype, type(None))): continue
        seen[id(o)] = o
        if isinstance(o, np.ndarray):
            yield path,o
            todo.append((path+'.base', o.base))
            if o.dtype==object: todo += [(path+'[]', x) for x in o.ravel()]
        elif isinstance(o, (tuple, list, set, frozenset)): todo += [(path+'[]', x) for x in o]
        elif isinstance(o, dict): todo += [(path+'[]', x) for x in o.values()]
        elif isinstance(o, pd.DataFrame):
            todo += [(path+'.values', o.to_numpy()), (path+'.index', o.index.to_numpy()), (path+'.attrs', o.attrs)]
        elif isinstance(o, (View, DatasetVersion)):
            for k in dir(o):
                if not k.startswith('_'): todo.append((f'{path}.{k}', getattr(o, k)))
        elif callable(o):
            for k in vars(o) if hasattr(o, '__dict__') else (): todo.append((f'{path}.{k}', vars(o)[k]))
        elif not isinstance(o, (np.generic, pd.Timestamp)): raise AssertionError(f'{path} is {type(o)}, which this test does not know')


def asked(view):
    "What a view answers to all of its questions"
    calls = ('lag', ()), ('lag', (3,)), ('window', (9,)), ('frame', (9,))
    yield from (getattr(view, call)(k, *args) for k in FIELDS for call,args in calls)
    yield from (view.roll(lambda w: w[:,-1], k, 5) for k in FIELDS)
    yield from (view.facts('category', object), view.facts('ticker', object), view.facts('dividend'))
    yield from (view.announced('dividend'), view.announced('split_ratio'))
    yield from (view.age(), view.closed(), view[[0]], list(view), view.sessions, view.ids)


def leaks(view):
    out = []
    for path,a in reachable([view, *asked(view)]):
        if a.dtype.kind=='M' and (a>np.datetime64(DAY)).any(): out.append(path)
        if a.dtype.kind=='f' and (a==LATER).any(): out.append(path)
        if a.dtype.kind=='O' and any(o in (str(LATER), LATER) for o in a.ravel()): out.append(path)
        if len(a)>250 and a.ndim>1: out.append(f'{path} has {len(a)} rows')
    return out


def test_no_later_row_can_be_reached_from_a_view(home):
    made = publish(secret_market(), 'm', home)
    for panel in (load_panel(made.until(made.last)), *panels_of(made)):
        view = panel.view(DAY)
        assert leaks(view)==[]
        assert panel._fields['close'][-1].tolist()==[LATER]*3, 'it is there, behind the underscore'


def test_the_walk_would_notice_a_leak(home):
    panel = load_panel(publish(secret_market(), 'm', home))
    class Careless(View):
        @property
        def recent(self): return self._panel._fields['close'][:140][-3:]
        @property
        def all_sessions(self): return self._panel.sessions
    found = leaks(Careless(panel, [panel.view(DAY)._rows[0]]))
    assert any('recent.base' in o for o in found) and any('all_sessions' in o for o in found)


def test_what_a_view_hands_out_is_its_own(home):
    panel = load_panel(publish(secret_market(), 'm', home))
    before = bits(panel)
    for a in asked(panel.view(DAY)):
        if isinstance(a, np.ndarray) and a.flags.writeable and a.dtype.kind in 'fi': a[:] = 0
    assert bits(panel)==before
    ids = panel.view(DAY).ids
    with pytest.raises(ValueError, match='read-only'): ids[0] = 'ZZZ'


def test_nothing_that_a_view_hands_out_can_be_unlocked(home):
    panel = load_panel(publish(secret_market(), 'm', home))
    before,ids,sessions = bits(panel),panel.ids.tolist(),panel.sessions.tolist()
    def vandalise(a):
        try: a.flags.writeable = True
        except ValueError: return
        a[...] = a[...] if a.dtype.kind=='O' else np.zeros((), a.dtype)
    view = panel.view(DAY)
    for _,a in reachable([view, *asked(view)]): vandalise(a)
    assert bits(panel)==before and panel.ids.tolist()==ids==view.ids.tolist() and panel.sessions.tolist()==sessions
    view.ids.shape = 3,1
    assert view.ids.shape==panel.ids.shape==(3,)
    with pytest.raises(AttributeError): view.dataset_version.name = 'x'


# ---- the command line

def test_snapshot_commands(call, place, tmp_path):
    place['QUANTETF_DATA'] = str(tmp_path/'data')
    home = settings_in(tmp_path/'data')
    none = call('quantetf', 'snapshot', 'list')
    assert none.returncode==0 and 'no datasets yet' in none.stdout
    t = market(40)
    era = pd.DataFrame(dict(id=['AAA'], name='price_basis', effective='2022-12-01', known_at='2022-12-01', value='as_traded'))
    a,b = publish(changed(t, facts=era), 'a', home),publish(market(39), 'b', home, synthetic=True)
    listed = call('quantetf', 'snapshot', 'list').stdout.splitlines()
    assert [o.split()[:2] for o in listed[1:]]==[['a', a.id[:12]], ['b', b.id[:12]]]
    assert 'SYNTHETIC' in listed[2] and '3 as_traded' in listed[1]
    shown = call('quantetf', 'snapshot', 'show', 'a').stdout
    assert str(a.version) in shown and 'as_traded from 2022' in shown and 'Ünï' in shown
    differ = call('quantetf', 'snapshot', 'diff', 'b', a.id[:12])
    assert differ.returncode==0 and str(a.version.id[:12]) in differ.stdout and '2023-01-30' in differ.stdout, differ.stdout + differ.stderr
    fine = call('quantetf', 'snapshot', 'verify')
    assert fine.returncode==0 and [o.split() for o in fine.stdout.splitlines()]==[['a', 'intact'], ['b', 'intact']]
    only_a = set(o.name for o in files_of(home, a)) - set(o.name for o in files_of(home, b)) - {'snapshot.json'}
    file = home.data/'chunks'/sorted(only_a)[-1]
    file.write_bytes(file.read_bytes()[:-1])
    hurt = call('quantetf', 'snapshot', 'verify')
    assert hurt.returncode==1 and file.name in hurt.stdout and [o.split()[1] for o in hurt.stdout.splitlines()][1:]==['intact']
    assert call('quantetf', 'snapshot', 'verify', 'b').returncode==0 and call('quantetf', 'snapshot', 'verify', 'c').returncode==1
    refused = call('quantetf', 'snapshot', 'show', 'a')
    assert refused.returncode==1 and file.name in refused.stderr and refused.stderr.count('\n')==1
