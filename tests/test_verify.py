"""A run made again from its manifest: here, on another machine, with other packages, and after somebody changed it."""
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from test_components import NEEDED, ROLES

from quantetf.backtest.run import run_backtest
from quantetf.core import build, find_settings, kinds, resolved
from quantetf.production import verify as module
from quantetf.production.runtime import produce
from quantetf.production.verify import file_differences, verify

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    "A project of its own with two packets, one of them with holdings, and a backtest with flows"
    folder = tmp_path_factory.mktemp('project')
    shutil.copytree(ROOT/'configs', folder/'configs')
    (folder/'settings.ini').write_text('[quantetf]\n')
    (folder/'mine.csv').write_text('ticker,shares\nGLD1,100\nCASH,50000\n')
    (folder/'saver.csv').write_text('date,amount\n2023-06-15,5000\n')
    settings = find_settings(folder, environ={})
    produce('2024-05-31', settings=settings)
    produce('2024-06-28', holdings='mine.csv', accept='reconciliation=another account than that of May', settings=settings)
    produce('2024-07-10', settings=settings)
    run_backtest(start='2022-01-03', end='2023-12-29', flows='saver.csv', settings=settings)
    return settings


def runs(settings): return sorted(o.parent for o in settings.runs.glob('*/*/*/manifest.json'))


def copied(settings, to):
    "The project, elsewhere"
    shutil.copytree(settings.root, to)
    return replace(settings, root=to, data=to/'data', configs=to/'configs', runs=to/'runs')


def test_every_kind_of_run_is_identical(project):
    found = [verify(o, project) for o in runs(project)]
    assert len(found)==4 and {o.state for o in found}=={'identical'} and all(o.ok and not o.found for o in found), found


def test_on_another_machine(project, tmp_path):
    "Another folder, user, time zone, language and hash seed, no config at all; the demo market is made anew there"
    there = copied(project, tmp_path/'else'/'where')
    shutil.rmtree(there.data)
    shutil.rmtree(there.configs)
    (tmp_path/'home').mkdir()
    env = {k:v for k,v in os.environ.items() if not k.startswith('QUANTETF_')} | dict(HOME=str(tmp_path/'home'), TZ='Pacific/Kiritimati',
        LANG='C', LC_ALL='C', PYTHONHASHSEED='7', PYTHONPATH=str(ROOT))
    (there.root/'saver.csv').unlink()
    code = 'import sys; from quantetf.cli import main; main()'
    done = subprocess.run([sys.executable, '-c', code, 'verify', *map(str, runs(there))], cwd=there.root, env=env, capture_output=True,
        text=True, timeout=120)
    assert done.returncode==0, done.stdout + done.stderr
    assert done.stdout.count('identical to the byte')==4 and len(done.stdout.splitlines())==4


def packet(settings): return next(o for o in runs(settings) if '2024-06-28' in o.parts)


def test_an_output_that_was_changed(project, tmp_path):
    there = copied(project, tmp_path/'p')
    for name in 'recommendations.csv', 'recommendations.json', 'report.html', 'diff.json':
        file = packet(there)/name
        kept = file.read_bytes()
        file.write_bytes(kept + b' ')
        found = verify(packet(there), there)
        assert not found.ok and [o.cause for o in found.found]==['run'] and name in found.found[0].what
        file.unlink()
        assert not verify(packet(there), there).ok
        file.write_bytes(kept)
    (packet(there)/'more.csv').write_text('buy')
    assert 'more.csv is no part of the run' in str(verify(packet(there), there))


def test_a_manifest_that_was_changed(project, tmp_path):
    there = copied(project, tmp_path/'p')
    file = packet(there)/'manifest.json'
    m = json.loads(file.read_text())
    kept = json.dumps(m)
    m['inputs']['book']['cash'] += 1000
    file.write_text(json.dumps(m))
    found = verify(packet(there), there)
    assert not found.ok and 'does not give its own id' in found.found[0].what
    file.write_text(json.dumps(json.loads(kept)|dict(status='hold')))
    found = verify(packet(there), there)
    assert not found.ok and 'manifest.json says hold' in str(found)
    m['inputs']['book']['cash'] -= 1000
    file.write_text(json.dumps(m | dict(when='2024-06-27')))
    assert not verify(packet(there), there).ok


def test_the_cause_is_named(project, tmp_path, monkeypatch):
    there = copied(project, tmp_path/'p')
    assert verify(packet(there), there).ok
    def causes():
        found = verify(packet(there), there)
        return found.state,sorted({o.cause for o in found.found})
    monkeypatch.setattr(module, 'code_hash', lambda *_: 64*'0')
    assert causes()==('identical', ['code'])
    monkeypatch.setattr(module, 'environment', lambda _: dict(python='3.99', system='Linux', machine='x86_64', packages={}))
    assert causes()==('identical', ['code', 'environment'])
    make = module.remake_packet
    def otherwise(*args):
        data,files = make(*args)
        return data,files | {'recommendations.csv':files['recommendations.csv'].replace('buy', 'sell')}
    monkeypatch.setattr(module, 'remake_packet', otherwise)
    assert causes()==('different', ['code', 'environment'])
    monkeypatch.undo()
    monkeypatch.setattr(module, 'remake_packet', otherwise)
    assert causes()==('different', ['unexplained'])
    def last_digit(*args):
        data,files = make(*args)
        moved = json.loads(files['recommendations.json'])
        for o in moved['rows']: o['notional'] *= 1+1e-13
        return data,files | {'recommendations.json':json.dumps(moved)}
    monkeypatch.setattr(module, 'remake_packet', last_digit)
    assert causes()==('equal', [])
    monkeypatch.undo()
    shutil.rmtree(there.data/'snapshots')
    shutil.rmtree(there.data/'datasets')
    monkeypatch.setattr('quantetf.data.demo.demo_tables', lambda: pytest.fail('not asked for'))
    (there.data/'snapshots').mkdir()
    m = json.loads((packet(there)/'manifest.json').read_text())
    m['inputs']['dataset_name'] = 'gone'
    (packet(there)/'manifest.json').write_text(json.dumps(m))
    assert causes()==('impossible', ['data', 'run'])


def test_a_config_that_means_something_else(project, tmp_path, monkeypatch):
    there = copied(project, tmp_path/'p')
    real = module.strategy_config
    monkeypatch.setattr(module, 'strategy_config', lambda s: real(s) | dict(costs=dict(kind='proportional', bps=99.)))
    found = verify(packet(there), there)
    assert found.found==[module.Difference('config', 'costs.bps: 10 → 99')]


@pytest.mark.parametrize('role,kind', [(role, kind) for role in ROLES for kind in sorted(kinds(role))])
def test_what_a_manifest_says_of_a_component_makes_it_again(role, kind):
    made = kinds(role)[kind](**NEEDED.get((role, kind), {}))
    said = json.loads(json.dumps(resolved(made)))
    assert resolved(build(role, said, kind))==resolved(made)


def test_counts_and_dates_of_a_page_are_exact():
    "The last digit of a fraction may be another one elsewhere; a share or a day may not"
    assert file_differences('report.html', b'<p>1.2345 at 100</p>', b'<p>1.2346 at 100</p>')==[]
    for other in b'<p>1.2345 at 101</p>', b'<p>1.2347 at 100</p>': assert file_differences('report.html', b'<p>1.2345 at 100</p>', other)
