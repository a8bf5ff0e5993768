"""The quantetf command, as a process of its own where that may matter: exit codes, one-line errors, and that it starts fast."""
import json
import subprocess
import sys
from pathlib import Path

import pytest

import quantetf

ROOT = Path(__file__).resolve().parent.parent
HEAD = 'Date,Open,High,Low,Close,AdjClose,Volume,Dividends\n'


@pytest.fixture
def prices(tmp_path):
    "A folder of two vendor files"
    folder = tmp_path/'prices'
    folder.mkdir()
    for ticker,p in ('AAA', 100.), ('BBB', 50.):
        rows = ''.join(f'2024-06-{d},{p+i},{p+i+1},{p+i-1},{p+i},{p+i},1000000,0\n' for i,d in enumerate((24, 25, 26, 27, 28)))
        (folder/f'{ticker}.csv').write_text(HEAD+rows)
    return folder


def test_version_and_help(call):
    assert call('quantetf', '--version', new=True).stdout.strip()==f'quantetf {quantetf.__version__}'
    names = ('ingest', 'snapshot', 'snapshot verify', 'produce', 'backtest', 'feasibility', 'compare', 'walkforward', 'fragility', 'audit',
        'verify', 'due')
    for command in (), *(o.split() for o in names):
        done = call('quantetf', *command, '--help')
        assert done.returncode==0 and 'Usage: quantetf' in done.stdout
        assert not command or '[OPTIONS]' in done.stdout


def test_help_loads_nothing_heavy():
    code = ("import sys\nsys.argv = ['quantetf', '--help']\nfrom quantetf.cli import main\ntry: main()\nexcept SystemExit: pass"
        "\nprint(sorted({'pandas', 'numpy', 'papermill', 'pydantic', 'exchange_calendars'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1]=='[]', done.stdout + done.stderr


def test_wrong_usage(call):
    for wrong in ('produze',), ('ingest', 'csv'), ('produce', '--strategee', 'x'):
        done = call('quantetf', *wrong)
        assert done.returncode==2 and 'Error: ' in done.stderr and 'Traceback' not in done.stderr


def test_outside_a_project(call, tmp_path):
    done = call('quantetf', 'snapshot', 'list', cwd=tmp_path, new=True)
    assert done.returncode==1 and done.stderr.startswith('Error: no settings.ini') and done.stderr.count('\n')==1
    debug = call('quantetf', '--debug', 'snapshot', 'list', cwd=tmp_path)
    assert debug.returncode==1 and 'Traceback (most recent call last)' in debug.stderr


def test_ingest_and_snapshots(call, place, prices, tmp_path):
    place['QUANTETF_DATA'] = str(tmp_path/'data')
    done = call('quantetf', 'ingest', 'csv', prices, '--name', 'two')
    assert done.returncode==0, done.stderr
    assert done.stdout.startswith('two@') and '2024-06-24 to 2024-06-28' in done.stdout
    pointer = json.loads((tmp_path/'data'/'datasets'/'two.json').read_text())
    assert done.stdout.startswith(f"two@{pointer['id'][:12]}")

    again = call('quantetf', 'ingest', 'csv', prices, '--name', 'two')
    assert again.stdout==done.stdout, 'the same files are the same dataset'
    cut = call('quantetf', 'ingest', 'csv', prices, '--name', 'cut', '--until', '2024-06-26')
    assert '2024-06-24 to 2024-06-26' in cut.stdout, cut.stderr

    listed = call('quantetf', 'snapshot', 'list')
    assert listed.returncode==0, listed.stderr
    assert [line.split()[0] for line in listed.stdout.splitlines()]==['name', 'cut', 'two']
    assert call('quantetf', 'snapshot', 'show', 'demo').returncode==0
    assert 'SYNTHETIC' in call('quantetf', 'snapshot', 'list').stdout


def test_ingest_says_what_is_wrong(call, place, prices, tmp_path):
    place['QUANTETF_DATA'] = str(tmp_path/'data')
    for args,says in {('csw', prices, '--name', 'two'):"did you mean 'csv'?", ('csv', prices/'no', '--name', 'two'):'no',
            ('csv', prices, '--name', '../two'):'cannot be the name', ('csv', prices, '--name', 'demo'):'demo',
            ('csv', prices, '--name', 'two', '--until', 'soon'):'is not a date'}.items():
        done = call('quantetf', 'ingest', *args)
        assert done.returncode==1 and says in done.stderr and done.stderr.count('\n')==1, done.stderr
    (prices/'AAA.csv').write_text(HEAD+'2024-06-24,1,1,1,oops,1,1,0\n')
    done = call('quantetf', 'ingest', 'csv', prices, '--name', 'two')
    assert done.returncode==1 and 'AAA.csv' in done.stderr and 'oops' in done.stderr and done.stderr.count('\n')==1
    assert not (tmp_path/'data'/'datasets').exists()


def test_due(call):
    done = call('quantetf', 'due', '--strategy', 'demo_momentum', '--today', '2024-07-04')
    assert done.returncode==0, done.stderr
    assert done.stdout.split()==['demo_momentum', 'last', '2024-06-28', 'next', '2024-07-31']
    assert call('quantetf', 'due', '--strategy', 'demo_momentum', '--today', '20240628', '--last').stdout.strip()=='2024-06-28'
    every = call('quantetf', 'due').stdout.splitlines()
    assert [line.split()[0] for line in every]==sorted(f.stem for f in (ROOT/'configs'/'strategies').glob('*.yaml'))
    wrong = call('quantetf', 'due', '--strategy', 'demo_momentun')
    assert wrong.returncode==1 and "did you mean 'demo_momentum'?" in wrong.stderr


def test_produce_is_the_notebook(call, place):
    done = call('quantetf', 'produce', '2024-06-28', new=True)
    assert done.returncode==0, done.stderr
    folder,report = (Path(line.split()[1]) for line in done.stdout.splitlines()[1:])
    assert json.loads((folder/'manifest.json').read_text())['id'] and report.is_file()
    typed = call('papermill', 'production.ipynb', '-p', 'as_of', '2024-06-28', cwd=ROOT/'nbs')
    assert typed.stdout==done.stdout


def test_produce_without_a_date_takes_the_last_session(call, place):
    done = call('quantetf', 'produce')
    assert done.returncode==0, done.stderr
    assert '/production/2025-12-31/' in done.stdout.replace('\\', '/')


def test_produce_says_what_is_wrong(call):
    done = call('quantetf', 'produce', '2024-06-28', '--holdings', 'no.csv', new=True)
    assert done.returncode==1 and 'no.csv' in done.stderr and done.stderr.count('\n')==1, done.stderr


def test_audit(call):
    done = call('quantetf', 'audit', 'demo_momentum', '--sample', '2')
    assert done.returncode==0 and done.stdout.startswith('PASS: demo_momentum on demo@'), done.stderr
    assert call('quantetf', 'audit', 'demo_momentumm').returncode==1


def test_feasibility(call):
    asked = '--start', '2022-01-01', '--end', '2023-12-29', '--portfolios', '300', '--draws', '10'
    done = call('quantetf', 'feasibility', *asked)
    assert done.returncode==0, done.stderr
    assert done.stdout.startswith('result   ') and 'SYNTHETIC' in done.stdout and '/feasibility/' in done.stdout.replace('\\', '/')
    done = call('quantetf', 'feasibility', '--portfolios', '3')
    assert done.returncode==1 and done.stderr.startswith('Error: portfolios=3 is not a whole number'), done.stderr


def test_backtest(call):
    done = call('quantetf', 'backtest', '--start', '2022-01-01', '--end', '2023-12-29')
    assert done.returncode==0, done.stderr
    assert done.stdout.startswith('result   2022-01-03 to 2023-12-29, 100,000 became ') and '/backtest/' in done.stdout.replace('\\', '/')
