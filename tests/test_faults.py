"""Full disks, lost machines, two runs at once, damaged files: what was published stays, and what is new is whole or not there."""
import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from faults import in_a_fork

from quantetf.core import DataError, IntegrityError, ParameterError, QuantETFError, build, find_settings
from quantetf.data.ingest import findings, ingest
from quantetf.data.raw import keep_raw, read_raw
from quantetf.data.snapshot import open_snapshot, publish, verify_all
from quantetf.data.view import load_panel
from quantetf.production.runtime import produce
from quantetf.production.verify import verify
from quantetf.runs import find_runs, publish_run

pytestmark = pytest.mark.skipif(not Path('/proc/self/fd').exists(), reason='needs fork and /proc')

ROOT = Path(__file__).resolve().parent.parent
HOWS = 'disk', 'full', 'kill', 'power'
HEAD = 'Date,Open,High,Low,Close,AdjClose,Volume,Dividends\n'
DAYS = '2024-06-24', '2024-06-25', '2024-06-26', '2024-06-27', '2024-06-28', '2024-07-01'


@pytest.fixture(scope='module')
def market(tmp_path_factory):
    "A data folder with the demo market in it, and its panel laid out"
    data = tmp_path_factory.mktemp('market')
    load_panel(open_snapshot('demo', replace(find_settings(ROOT, environ={}), data=data)))
    return data


def project(folder, data=None):
    folder = Path(folder)
    if not (folder/'configs').exists():
        shutil.copytree(ROOT/'configs', folder/'configs')
        (folder/'settings.ini').write_text('[quantetf]\n')
    return replace(find_settings(folder, environ={}), data=data or folder/'data')


def contents(folder):
    "Every file that can be seen, and its bytes"
    seen = [o for o in Path(folder).rglob('*') if o.is_file() and not any(p.startswith('.') for p in o.relative_to(folder).parts)]
    return {o.relative_to(folder).as_posix():o.read_bytes() for o in seen}


# Every write, every fsync, every rename

OLD,NEW = ({'report.html':f'<b>{o}</b>', 'recommendations.csv':f'ticker,shares\nSPY,{o}\n'} for o in (1, 2))


def put(settings, when, outputs):
    inputs = dict(strategy='core', as_of=when)
    return publish_run('production', when, 'core', inputs, outputs, {'environment.json':'{}'}, settings)


@pytest.mark.parametrize('how', HOWS)
def test_a_packet_at_every_step(how, tmp_path):
    settings = project(tmp_path/'plain')
    put(settings, '2024-05-31', OLD)
    before = contents(settings.runs)
    _,steps,log,_ = in_a_fork(lambda: put(settings, '2024-06-28', NEW), settings.runs)
    after = contents(settings.runs)
    assert steps==len(log)>10 and {what for what,_ in log}=={'mkdir', 'open', 'write', 'fsync', 'rename'}, log
    for n in range(1, steps+1):
        place = project(tmp_path/f'{n}')
        put(place, '2024-05-31', OLD)
        said,_,_,code = in_a_fork(lambda place=place: put(place, '2024-06-28', NEW), place.runs, n, how)
        assert code!=0 and (code==-signal.SIGKILL if how in ('kill', 'power') else isinstance(said, DataError)), (n, said)
        assert contents(place.runs) in (before, after), (n, log[n-1])
        assert [o.damaged() for o in find_runs(place, 'production')] in ([[]], [[], []])
        put(place, '2024-06-28', NEW)
        assert contents(place.runs)==after, 'again, on a machine that works'


def vendor(folder, days, tickers=('AAA', 'BBB')):
    folder.mkdir(exist_ok=True)
    for k,ticker in enumerate(tickers):
        rows = ''.join(f'{d},{p},{p+1},{p-1},{p},{p},1000000,0\n' for i,d in enumerate(days) for p in [100.+50*k+i])
        (folder/f'{ticker}.csv').write_text(HEAD+rows)
    return folder


def each_step(first, tmp_path, work, hows, every=1):
    "(where, settings) after a fault at each step of `work`, each time in a copy of the project `first`"
    shutil.copytree(first.root, tmp_path/'whole')
    whole = project(tmp_path/'whole')
    said,steps,log,code = in_a_fork(lambda: work(whole), whole.data)
    assert code==0 and steps==len(log)>5, said
    for n in range(1, steps+1, every):
        for how in (hows if n%2 else hows[-1:]) if every==1 else [hows[n//every%len(hows)]]:
            shutil.rmtree(tmp_path/'now', ignore_errors=True)
            shutil.copytree(first.root, tmp_path/'now')
            place = project(tmp_path/'now')
            said,_,_,code = in_a_fork(lambda place=place: work(place), place.data, n, how)
            where = how,n,steps,log[n-1],said
            assert code==-signal.SIGKILL if how in ('kill', 'power') else code==1 or log[n-1][1].startswith('/raw/two'), where
            if code==1: assert isinstance(said, (QuantETFError, OSError)), where
            yield where,place


def test_raw_files_at_every_step(tmp_path):
    source,first = vendor(tmp_path/'prices', DAYS[:-1]),project(tmp_path/'first')
    ingestor = build('ingestor', dict(kind='csv'))
    keep_raw(ingestor, str(source), 'two', first)
    old = contents(first.data)
    vendor(source, DAYS)
    def keep(place): keep_raw(ingestor, str(source), 'two', place)
    for where,place in each_step(first, tmp_path, keep, ('full', 'power')):
        new = {k:v for k,v in contents(place.data).items() if k not in old}
        assert {k:v for k,v in contents(place.data).items() if k in old}==old and len(new) in (0, 3), where
        folder = keep_raw(ingestor, str(source), 'two', place)
        assert {k:bytes(v) for k,v in read_raw(folder).items()}=={o.name:o.read_bytes() for o in source.iterdir()}, where


def curated(source, settings):
    "The tables that `ingest` would publish"
    return open_snapshot(ingest('csv', source, 'other', settings).id, settings).tables


def test_a_snapshot_at_every_step(tmp_path):
    "The name means the old dataset or the new one, and each is whole"
    source,first,aside = vendor(tmp_path/'prices', DAYS[:-1]),project(tmp_path/'first'),project(tmp_path/'aside')
    one = curated(source, aside)
    two = curated(vendor(source, DAYS), aside)
    old = publish(one, 'two', first).id
    before = contents(first.data)
    for where,place in each_step(first, tmp_path, lambda place: publish(two, 'two', place) and None, ('disk', 'power')):
        there = open_snapshot('two', place)
        assert there.tables.bars.session.max()==pd.Timestamp(DAYS[4 if there.id==old else 5]), where
        now = contents(place.data)
        assert all(now[k]==v for k,v in before.items() if not k.startswith('datasets')), where
        new = publish(two, 'two', place)
        assert new.id!=old and open_snapshot('two', place).id==new.id and open_snapshot(old, place), where
    assert {k:v for k,v in verify_all(place).items() if v}=={}


def test_an_ingest_on_its_way(tmp_path):
    "The whole road from files to a name"
    source,first = vendor(tmp_path/'prices', DAYS[:-1]),project(tmp_path/'first')
    old = ingest('csv', source, 'two', first).id
    vendor(source, DAYS)
    def work(place): ingest('csv', source, 'two', place)
    for where,place in each_step(first, tmp_path, work, HOWS, every=7):
        assert open_snapshot('two', place) and {k:v for k,v in verify_all(place).items() if v}=={}, where
        new = ingest('csv', source, 'two', place)
        assert new.id!=old and findings(new, place)['snapshot']==new.id and not any(verify_all(place).values()), where


# At any moment

def test_killed_at_any_moment(market, tmp_path):
    settings = project(tmp_path/'p', market)
    may = produce('2024-05-31', settings=settings)
    kept = contents(may.folder)
    start = time.monotonic()
    whole = produce('2024-06-28', settings=replace(settings, runs=tmp_path/'whole'))
    took,pick = time.monotonic()-start,random.Random(7)
    alone = contents(whole.folder)
    for k in range(6):
        runs = tmp_path/f'runs{k}'
        shutil.copytree(settings.runs, runs, copy_function=shutil.copy2)
        place = replace(settings, runs=runs)
        if not (pid := os.fork()):
            try: produce('2024-06-28', settings=place)
            finally: os._exit(0)
        time.sleep(pick.uniform(.3, 1.2)*took)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        found = find_runs(place, 'production')
        assert [o.manifest['when'] for o in found] in (['2024-05-31'], ['2024-05-31', '2024-06-28'])
        assert all(not o.damaged() for o in found) and contents(found[0].folder)==kept
        again = produce('2024-06-28', settings=place)
        assert set(contents(again.folder))==set(alone) and verify(again.folder, place).ok


# Two at once

def together(*calls):
    "What several forked copies of this process returned, started at the same moment"
    go,ready = os.pipe(),[]
    for f in calls:
        r,w = os.pipe()
        if not (pid := os.fork()):
            os.close(go[1])
            os.read(go[0], 1)
            try: out = f()
            except BaseException as e: out = f'{type(e).__name__}: {e}' # noqa: B036
            os.write(w, json.dumps(out).encode())
            os._exit(0)
        os.close(w)
        ready.append((pid, r))
    os.close(go[0]), os.close(go[1])
    out = []
    for pid,r in ready:
        with os.fdopen(r, 'rb') as pipe: out.append(json.loads(pipe.read()))
        os.waitpid(pid, 0)
    return out


def test_the_same_packet_twice_at_once(market, tmp_path):
    settings = project(tmp_path/'p', market)
    def one():
        packet = produce('2024-06-28', settings=settings)
        return packet.run_id,packet.run.fresh
    found = together(one, one, one)
    assert len({o[0] for o in found})==1 and sum(o[1] for o in found)==1, found
    (run,) = find_runs(settings, 'production')
    assert not run.damaged() and verify(run.folder, settings).ok


def test_two_strategies_at_once(market, tmp_path):
    settings = project(tmp_path/'p', market)
    names = 'demo_momentum','other'
    shutil.copy(settings.configs/'strategies'/'demo_momentum.yaml', settings.configs/'strategies'/'other.yaml')
    found = together(*[lambda o=o: produce('2024-06-28', o, settings=settings).run_id for o in names])
    assert sorted(o.id for o in find_runs(settings, 'production'))==sorted(found) and len(set(found))==2
    assert all(not o.damaged() for o in find_runs(settings, 'production'))


def test_the_demo_market_made_by_two_at_once(tmp_path):
    settings = project(tmp_path/'p')
    found = together(*2*[lambda: open_snapshot('demo', settings).id])
    assert len(set(found))==1 and set(map(tuple, verify_all(settings).values()))=={()}


def test_two_ingests_at_once(tmp_path):
    settings,source = project(tmp_path/'p'),vendor(tmp_path/'prices', DAYS)
    found = together(*3*[lambda: ingest('csv', source, 'two', settings).id])
    assert len(set(found))==1 and {k:v for k,v in verify_all(settings).items() if v}=={}


# Disks that are full, and folders that are read-only

def limited(f):
    "`f` in a process that the kernel does not let write files beyond 2 KB"
    def g():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))
        return f()
    return in_a_fork(g)[0]


def test_files_that_the_kernel_refuses(market, tmp_path):
    settings = project(tmp_path/'p', market)
    may = produce('2024-05-31', settings=settings)
    before = contents(settings.runs)
    said = limited(lambda: produce('2024-06-28', settings=settings).run_id)
    assert isinstance(said, DataError) and 'free some space' in str(said)
    assert contents(settings.runs)==before and not may.run.damaged()
    source,place = vendor(tmp_path/'prices', 20*[DAYS[0]]),project(tmp_path/'q')
    vendor(source, [str(o)[:10] for o in pd.bdate_range('2023-01-03', '2023-05-26') if str(o)[:10] not in (
        '2023-01-16', '2023-02-20', '2023-04-07')])
    said = limited(lambda: ingest('csv', source, 'two', place).id)
    assert isinstance(said, QuantETFError), said
    assert not (place.data/'datasets').exists()
    assert ingest('csv', source, 'two', place).id==open_snapshot('two', place).id


def test_a_disk_that_is_really_full(market, tmp_path):
    disk = tmp_path/'small'
    disk.mkdir()
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=64k', 'none', str(disk)], capture_output=True).returncode:
        pytest.skip('may not mount a small file system here')
    try:
        settings = replace(project(tmp_path/'p', market), runs=disk)
        with pytest.raises(DataError, match='free some space'): produce('2024-06-28', settings=settings)
        assert contents(disk)=={} and [o for o in disk.rglob('*') if o.is_file()]==[]
    finally: subprocess.run(['umount', str(disk)], check=True)


def as_nobody(f):
    "`f` by a user who may write nowhere"
    def g():
        if os.geteuid()==0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        return f()
    return in_a_fork(g)[0]


def test_a_read_only_runs_folder(market, tmp_path):
    settings = project(tmp_path/'p', market)
    may = produce('2024-05-31', settings=settings)
    before = contents(settings.runs)
    opened = [o for o in (*tmp_path.parents, *market.parents) if o.stat().st_uid==os.geteuid() and o!=Path('/')]
    modes = {o:o.stat().st_mode for o in opened}
    try:
        for o in opened: o.chmod(o.stat().st_mode | 0o055)
        for o in (tmp_path, *tmp_path.rglob('*'), market, *market.rglob('*')): o.chmod(0o555 if o.is_dir() else 0o444)
        said = as_nobody(lambda: produce('2024-06-28', settings=settings).run_id)
    finally:
        for o in (tmp_path, *tmp_path.rglob('*'), market, *market.rglob('*')): o.chmod(0o755 if o.is_dir() else 0o644)
        for o,mode in modes.items(): o.chmod(mode)
    assert isinstance(said, DataError) and 'allow writing there' in str(said), said
    assert contents(settings.runs)==before and not may.run.damaged()


# Clocks

ZONES = 'UTC', 'Pacific/Kiritimati', 'Pacific/Pago_Pago', 'America/St_Johns', 'Asia/Kathmandu'
# The close in UTC, to the minute: before and after the clocks change in New York, in Europe, and on a short day
CLOSES = {'2024-03-08':'21:00', '2024-03-11':'20:00', '2024-03-28':'20:00', '2024-11-01':'20:00', '2024-11-04':'21:00',
    '2024-11-29':'18:00'}


@pytest.mark.parametrize('day', CLOSES)
def test_a_session_is_over_when_it_has_closed(day, market, tmp_path):
    settings = project(tmp_path/'p', market)
    close = pd.Timestamp(f'{day} {CLOSES[day]}', tz='UTC')
    with pytest.raises(ParameterError, match='has not closed yet'):
        produce(day, settings=settings, now=close-pd.Timedelta(minutes=1))
    assert produce(day, settings=settings, now=close).data['as_of']==day
    assert produce(day, settings=settings, now=close.tz_convert('Asia/Tokyo')).data['as_of']==day


def test_time_zones_change_nothing(market, tmp_path):
    settings = project(tmp_path/'p', market)
    here = produce('2024-03-28', settings=settings)
    def there(zone):
        os.environ['TZ'] = zone
        time.tzset()
        place = replace(settings, runs=tmp_path/zone.replace('/', '_'))
        return contents(produce('2024-03-28', settings=place).folder)
    expected = {k:v for k,v in contents(here.folder).items() if k in here.run.manifest['outputs'] or k=='manifest.json'}
    for zone in ZONES:
        found,_,_,code = in_a_fork(lambda zone=zone: there(zone))
        assert code==0 and {k:found[k] for k in expected}==expected, zone


# Damage

def test_a_damaged_packet_stops_its_own_strategy_and_changes_nothing(market, tmp_path):
    settings = project(tmp_path/'p', market)
    may = produce('2024-05-31', settings=settings)
    file = may.folder/'recommendations.json'
    file.write_bytes(file.read_bytes()[:-100])
    before = contents(settings.runs)
    with pytest.raises(IntegrityError, match=r'recommendations\.json is not what was published; restore it'):
        produce('2024-06-28', settings=settings)
    (may.folder/'manifest.json').write_text('{')
    with pytest.raises(DataError, match='no readable run'): produce('2024-06-28', settings=settings)
    assert contents(settings.runs)==before | {f'{may.folder.relative_to(settings.runs)}/manifest.json':b'{'}
    shutil.copy(settings.configs/'strategies'/'demo_momentum.yaml', settings.configs/'strategies'/'other.yaml')
    assert produce('2024-06-28', 'other', settings=settings).status=='published'


def test_a_damaged_snapshot_makes_no_packet(market, tmp_path):
    data = tmp_path/'data'
    shutil.copytree(market, data)
    shutil.rmtree(data/'cache', ignore_errors=True)
    settings = project(tmp_path/'p', data)
    chunk = max((data/'chunks').rglob('*'), key=lambda o: o.stat().st_size if o.is_file() else 0)
    whole = chunk.read_bytes()
    for spoilt in (whole[:-1], whole[:1000] + bytes([whole[1000]^1]) + whole[1001:], b''):
        chunk.chmod(0o644)
        chunk.write_bytes(spoilt)
        with pytest.raises(IntegrityError, match='in snapshot'): produce('2024-06-28', settings=settings)
        assert not settings.runs.exists()
    chunk.write_bytes(whole)
    assert produce('2024-06-28', settings=settings).status=='published'


DIES = '''import os, quantetf.store as store
from quantetf.production.runtime import produce
real = store._show
store._show = lambda temp, folder: os._exit(9)
produce('2024-06-28')'''


def test_a_kernel_that_dies_while_publishing(market, tmp_path):
    settings = project(tmp_path/'p')
    (settings.root/'settings.ini').write_text(f'[quantetf]\ndata = {market}\n')
    settings = replace(settings, data=market)
    may = produce('2024-05-31', settings=settings)
    before = contents(settings.runs)
    cell = dict(cell_type='code', id='a', source=DIES, outputs=[], execution_count=None, metadata={})
    meta = dict(kernelspec=dict(name='python3', language='python', display_name='python3'), quantetf=dict(run='production'))
    (settings.root/'dies.ipynb').write_text(json.dumps(dict(cells=[cell], metadata=meta, nbformat=4, nbformat_minor=5)))
    env = {k:v for k,v in os.environ.items() if not k.startswith('QUANTETF_')} | dict(PYTHONPATH=str(ROOT),
        PATH=f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}')
    done = subprocess.run(['papermill', 'dies.ipynb'], cwd=settings.root, env=env, capture_output=True, text=True, timeout=60,
        stdin=subprocess.DEVNULL)
    assert done.returncode not in (0, errno.EPERM+1), done.stderr
    assert {k:v for k,v in contents(settings.runs).items() if not k.startswith('_executed')}==before and not may.run.damaged()
    assert produce('2024-06-28', settings=settings).run.fresh
