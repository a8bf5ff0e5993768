"""A large market from tables to a panel, against plain pandas and NumPy.

An invented market with funds that are born and die, `filled` of whose cells hold a bar. Timed are: tables and their checks, publishing,
an update by one day, opening to a ready panel (cold: the first time on this machine; laid out: from the cache), one field after the
other, the view of one evening, and curating as many vendor files. Opening is timed in a process of its own, after its imports, once
with its files in the page cache and once after they were dropped from it. What counts is the ratio to the plain bound beside it.

    python benchmarks/data.py            500 funds x 2,520 sessions
    python benchmarks/data.py --full     5,000 funds x 7,560 sessions, 11 million bars: the goals are about this one
"""
import os

os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from quantetf.calendars import sessions_between
from quantetf.core import Settings
from quantetf.data.schema import Tables
from quantetf.data.snapshot import open_snapshot, publish
from quantetf.data.vendors import Rows, VendorData
from quantetf.data.view import load_panel

PRICES = 'open', 'high', 'low', 'close'


# ---- the market

def market(funds, sessions, filled=.3, seed=1):
    "Days, ids, life (first row and length) and columns of bars in the order of fund and session; prices in cents"
    rng = np.random.default_rng(seed)
    days = sessions_between('1990-01-02', '2044-12-30')[:sessions]
    life = rng.integers(60, int(2*filled*sessions)-60, funds)
    start = np.where(np.arange(funds)%4==0, sessions-life, rng.integers(0, sessions-life+1)) # One in four is alive at the end
    fund,head = np.repeat(np.arange(funds), life),np.cumsum(life)-life
    row = np.arange(life.sum()) - np.repeat(head-start, life)
    path = np.cumsum(rng.normal(.0003, .011, len(fund)))
    close = np.exp(path - np.repeat(path[head], life))*np.repeat(rng.uniform(15, 200, funds), life)
    up,down,gap = (rng.normal(0, .004, len(fund)) for _ in range(3))
    high,low = close*(1+np.maximum(np.abs(up), gap)),close*(1-np.maximum(np.abs(down), -gap))
    columns = dict(open=close*(1+gap), high=high, low=low, close=close)
    columns = {k:np.maximum(v.round(2), .01) for k,v in columns.items()} | dict(volume=np.exp(rng.normal(12, 1, len(fund))).round())
    ids = np.array([f'F{j:05d}' for j in range(funds)])
    return days,ids,start,life,fund,row,columns


def tables_of(days, ids, start, life, fund, row, columns):
    "Canonical tables: a dividend each quarter, and a split of one fund in five"
    at = days.astype('datetime64[us]')
    bars = pd.DataFrame(dict(id=pd.Categorical.from_codes(fund, ids), session=at[row], **columns))
    k = np.flatnonzero(row%63==40)
    split = (np.cumsum(life)-life + life//2)[::5]
    acts = pd.DataFrame(dict(id=ids[fund[np.append(k, split)]], session=at[row[np.append(k, split)]],
        kind=['dividend']*len(k)+['split']*len(split), value=np.append(columns['close'][k]*.004, np.full(len(split), 2.)), pay=pd.NaT))
    first,end = at[start],start+life
    gone = pd.Series(at[end-1]).where(end<len(days))
    own = pd.DataFrame(dict(id=ids, name=ids, asset_class='equity', listed=first, delisted=gone, delisting_value=np.nan, basis='as_traded'))
    symbols = pd.DataFrame(dict(ticker=ids, id=ids, start=first, end=gone))
    return Tables(bars=bars, actions=acts.assign(known_at=acts.session), instruments=own, symbols=symbols,
        rates=pd.DataFrame(dict(session=at, annual=.03)))


def one_more_day(tables):
    "The tables an evening later: a bar for each fund that lives"
    last = tables.bars[tables.bars.session==tables.bars.session.max()]
    day = sessions_between(tables.rates.session.max().date(), '2044-12-31')[1].astype('datetime64[us]')
    new = last.assign(session=day, **{k:(last[k]*1.01).round(2) for k in PRICES})
    rates = pd.concat([tables.rates, pd.DataFrame(dict(session=[day], annual=.03))])
    return Tables(**(dict(tables.items()) | dict(bars=pd.concat([tables.bars, new]), rates=rates)))


# ---- measuring

def resident():
    "Megabytes of this process in memory, and the most there have been"
    lines = dict(o.split(':', 1) for o in Path('/proc/self/status').read_text().splitlines())
    return [int(lines[k].split()[0])/1024 for k in ('VmRSS', 'VmHWM')]


def dropped(folder):
    "Drop files from the page cache, so that the next reader has to go to the disk"
    for file in folder.rglob('*'):
        if file.is_file():
            fd = os.open(file, os.O_RDONLY)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


class Clock:
    "Prints a line for each thing timed"
    def __init__(self): self.took = {}

    def __call__(self, what, f, bound=None, goal=None):
        start = time.perf_counter()
        out = f()
        self.line(what, time.perf_counter()-start, bound, goal)
        return out

    def line(self, what, seconds, bound=None, goal=None):
        self.took[what] = seconds
        ratio = f'{seconds/bound[1]:8.1f} x {bound[0]} ({bound[1]:.2f} s)' if bound else ''
        print(f'{what:46s}{seconds:9.3f} s' + (f'   goal {goal:g} s' if goal else '            ') + ratio, flush=True)


def timed(f, runs=1):
    took = []
    for _ in range(runs):
        start = time.perf_counter()
        f()
        took.append(time.perf_counter()-start)
    return min(took)


# ---- in processes of their own

def opening(folder):
    "Open to a ready panel, then one field after the other; printed as JSON"
    import pyarrow.parquet  # noqa: F401 (imports are not what is timed)

    settings,before = Settings(*[folder]*4),resident()[0]
    out,start = {},time.perf_counter()
    def lap(what): out[what] = time.perf_counter()-start
    snapshot = open_snapshot('big', settings)
    lap('open, every file hashed')
    panel = load_panel(snapshot)
    lap('panel')
    day = panel.sessions[-5]
    panel.view(day).lag('close')
    lap('ready: closes of an evening')
    panel._fields['close']
    lap('closes, whole and verified')
    out['field MB'] = panel._fields['close'].nbytes/2**20
    out['resident'] = (resident()[0]-before)*2**20/panel._fields['close'].nbytes
    panel.view(day).lag('tr')
    lap('and total return of an evening')
    panel._fields['ret']
    lap('and returns, whole')
    panel.view(day).age()
    lap('and ages')
    view_runs = 20_000
    out['view'] = timed(lambda: [panel.view(day) for _ in range(view_runs)], 3)/view_runs
    out['view and one lag'] = timed(lambda: [panel.view(day).lag('close') for _ in range(200)], 3)/200
    out['peak MB'] = resident()[1]
    print(json.dumps(out))


def curating(funds, sessions):
    "Curate a market that a vendor has sent; printed as JSON"
    from quantetf.data.curate import curate
    days,ids,start,life,_,_,columns = market(funds, sessions)
    ends = np.cumsum(life)
    def rows(j):
        here = slice(ends[j]-life[j], ends[j])
        own = {k:v[here] for k,v in columns.items()}
        nothing = np.zeros(life[j])
        return Rows.make(ids[j], f'{ids[j]}.csv', np.arange(life[j])+2, days[start[j]:start[j]+life[j]], 'as_traded', adjclose=own['close'],
            dividend=nothing, split=nothing+1, capital_gain=nothing, **own)
    data = VendorData({f'{ids[j]}.csv':rows(j) for j in range(funds)})
    before = resident()[0]
    begin = time.perf_counter()
    tables,report = curate(data)
    took = time.perf_counter()-begin
    print(json.dumps(dict(seconds=took, bars=len(tables.bars), findings=len(report.findings), before=before, peak=resident()[1])))


def elsewhere(*args):
    "A stage in a process of its own"
    done = subprocess.run([sys.executable, __file__, *map(str, args)], capture_output=True, text=True)
    if done.returncode: return dict(failed=done.stderr.strip().splitlines()[-1])
    return json.loads(done.stdout.splitlines()[-1])


# ---- the bounds

def plain_open(file):
    "One Parquet file to an array of closes, by pandas"
    df = pd.read_parquet(file, columns=['id', 'session', 'close'])
    return df.pivot(index='session', columns='id', values='close').to_numpy()


def plain_walk(close):
    "Growth since the last close, with nothing paid and nothing split"
    return pd.DataFrame(close).ffill().to_numpy()


def main(funds, sessions, keep=None):
    folder = Path(keep or tempfile.mkdtemp(prefix='quantetf-bench-'))
    clock,settings = Clock(),Settings(*[folder/'data']*4)
    written(clock, settings, funds, sessions, folder/'plain.parquet')
    opened(clock, settings, ('pandas read_parquet and pivot', timed(lambda: plain_open(folder/'plain.parquet'))))
    did = elsewhere('--stage', 'curate', '--funds', funds, '--sessions', sessions)
    if 'failed' in did: print(f'curate: {did["failed"]}')
    else:
        clock.line('curate', did['seconds'], goal=60)
        print(f'    {did["bars"]:,} bars, {did["findings"]:,} findings')
        print(f'    {did["before"]:,.0f} MB of vendor rows before, {did["peak"]:,.0f} MB at most (goal 4,096)')
    if not keep: shutil.rmtree(folder)


def written(clock, settings, funds, sessions, plain):
    "From numbers to a published snapshot, and to that of the next evening"
    made = market(funds, sessions)
    n = len(made[4])
    print(f'{funds:,} funds x {sessions:,} sessions, {n/1e6:.2f} million bars, {n/funds/sessions:.0%} filled')
    tables = clock('tables', lambda: tables_of(*made))
    clock('validate', tables.validate)
    clock('until', lambda: tables.until(str(tables.bars.session.iloc[n//2])[:10]))
    folder,bound = settings.data/'chunks',timed(lambda: tables.bars.to_parquet(plain, index=False))
    clock('publish, the first time', lambda: publish(tables, 'big', settings), ('pandas to_parquet', bound))
    clock('publish, nothing new', lambda: publish(tables, 'big', settings))
    before = {o.name for o in folder.iterdir()}
    later = clock('tables, a day later', lambda: one_more_day(tables))
    clock('publish, a day later', lambda: publish(later, 'later', settings), goal=10)
    new = [o for o in folder.iterdir() if o.name not in before]
    print(f'    written: {", ".join(sorted(o.name.rsplit("-", 2)[0] for o in new))}; {disk(new):.1f} MB of {disk(folder.iterdir()):.0f}')


def disk(files): return sum(o.stat().st_size for o in files)/1e6


def opened(clock, settings, bound):
    "Cold and laid out, with files in memory and on the disk"
    cache = settings.data/'cache'
    for what,goal,fresh in (('cold', 1.5, True), ('laid out', .2, False)):
        for pages in ('in the page cache', 'on the disk'):
            each = []
            for _ in range(3):
                if fresh: shutil.rmtree(cache, ignore_errors=True)
                if pages=='on the disk': dropped(settings.data)
                each.append(elsewhere('--stage', 'open', '--folder', settings.data))
            print(f'{what}, files {pages}; the fastest of 3')
            if failed := [o['failed'] for o in each if 'failed' in o]: print(f'    {failed[0]}'); continue
            did = {k:min(o[k] for o in each) for k in each[0]}
            for k,v in did.items():
                ready = k.startswith('ready')
                if k=='resident' and did['field MB']>100: print(f'    resident after closes: {v:.2f} x the array   (goal 1.3)')
                elif k=='peak MB': print(f'    at most {v:,.0f} MB in memory, for 5 fields')
                elif k in ('field MB', 'resident'): pass
                elif k.startswith('view'): print(f'    {k}: {1e6*v:.1f} microseconds' + ('   goal 10' if k=='view' else ''))
                else: clock.line(f'    {k}', v, bound if ready else None, goal if ready else None)


if __name__=='__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--funds', type=int, default=500)
    parser.add_argument('--sessions', type=int, default=2520)
    parser.add_argument('--full', action='store_true', help='5,000 funds x 7,560 sessions')
    parser.add_argument('--keep', help='folder to leave the files in')
    parser.add_argument('--stage', choices=['open', 'curate'], help=argparse.SUPPRESS)
    parser.add_argument('--folder', type=Path, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.full: a.funds,a.sessions = 5000,7560
    if a.stage=='open': opening(a.folder)
    elif a.stage=='curate': curating(a.funds, a.sessions)
    else: main(a.funds, a.sessions, a.keep)
