"""The project around the modules: settings, run notebooks, dependencies, make targets, the README."""
import configparser
import json
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

import quantetf
from quantetf.core import Settings, find_settings

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT/'pyproject.toml').read_text(encoding='utf-8'))
RUN_NOTEBOOKS = ['production', 'backtest', 'ingest']


def test_settings_hold_every_key_and_the_defaults():
    ini = configparser.ConfigParser(interpolation=None)
    ini.read(ROOT/'settings.ini', encoding='utf-8')
    assert set(ini['quantetf'])=={f.name for f in fields(Settings)} - {'root'}
    got = find_settings(ROOT/'nbs', environ={})
    assert (got.data, got.configs, got.runs)==(ROOT/'data', ROOT/'configs', ROOT/'runs')
    for f in fields(Settings):
        if f.name not in ('root', 'data', 'configs', 'runs'): assert getattr(got, f.name)==f.default, f.name


def test_settings_are_documented_line_by_line():
    lines = (ROOT/'settings.ini').read_text(encoding='utf-8').splitlines()
    for before,line in zip(lines, lines[1:]):
        if ' = ' in line and not line.startswith('#'): assert before.startswith('# '), line


@pytest.mark.parametrize('name', RUN_NOTEBOOKS)
def test_run_notebooks_are_marked_skipped_and_clean(name):
    from quantetf.nbrun import declared, run_kind
    file = ROOT/'nbs'/f'{name}.ipynb'
    nb = json.loads(file.read_text(encoding='utf-8'))
    assert run_kind(file)==name
    assert nb['metadata']['nbdev']['skip_exec']=='true'
    code = [c for c in nb['cells'] if c['cell_type']=='code']
    assert not any(c['outputs'] or c['execution_count'] for c in code)
    form = [c for c in code if 'parameters' in c['metadata'].get('tags', [])]
    assert len(form)==1
    source = ''.join(form[0]['source'])
    assert all(' # ' in line for line in source.splitlines()), 'every parameter says what it is'
    assert declared(source)
    assert ''.join(code[-1]['source']).startswith('finish(')


def test_run_notebooks_stay_out_of_the_tests():
    from nbdev.test import test_nb
    for name in RUN_NOTEBOOKS: assert test_nb(ROOT/'nbs'/f'{name}.ipynb')==(True, 0)


def test_readme_is_in_step():
    sys.path.insert(0, str(ROOT/'tools'))
    from readme import readme
    assert (ROOT/'README.md').read_text(encoding='utf-8')==readme(), 'README.md is not what nbs/index.ipynb says: make readme'


def test_readme_names_only_what_exists():
    text = (ROOT/'README.md').read_text(encoding='utf-8')
    make = (ROOT/'Makefile').read_text(encoding='utf-8')
    for target in re.findall(r'\bmake ([a-z]+)', text): assert re.search(rf'^{target}:', make, re.M), target
    for file in re.findall(r'\]\((?!https?:|#)([^)]+)\)', text): assert (ROOT/file).exists(), file


def test_versions_agree():
    assert version('quantetf')==quantetf.__version__
    assert f'## {quantetf.__version__}' in (ROOT/'CHANGELOG.md').read_text(encoding='utf-8')


def names(requirements): return {re.match(r'[\w-]+', o)[0].lower() for o in requirements}


def test_runtime_needs_no_developer_tools():
    assert not names(PROJECT['project']['dependencies']) & {'jupyterlab', 'notebook', 'nbdev', 'dask', 'pytest', 'playwright', 'ruff', 'uv'}


def test_lock_has_every_requirement_with_hashes_and_no_address():
    lock = (ROOT/'requirements.lock').read_text(encoding='utf-8')
    pinned = set(re.findall(r'^([\w.-]+)(?:\[[\w,-]+\])?==', lock, re.M))
    extras = PROJECT['project']['optional-dependencies']
    wanted = names([*PROJECT['project']['dependencies'], *extras['lab'], *extras['dev']]) - {'quantetf'}
    assert wanted <= pinned
    assert '://' not in lock
    for pin in re.split(r'^(?=[\w.-]+[\[=])', lock, flags=re.M)[1:]: assert '--hash=sha256:' in pin, pin[:60]


MODULES = ['.'.join(f.relative_to(ROOT).with_suffix('').parts) for f in sorted((ROOT/'quantetf').rglob('*.py')) if f.name[0]!='_']
HEAVY = ['matplotlib', 'sklearn', 'scipy.stats', 'exchange_calendars', 'pydantic', 'jinja2', 'papermill', 'nbformat', 'typer', 'yaml',
    'IPython', 'jupyterlab', 'nbdev', 'dask', 'pytest']


def test_import_is_light():
    modules = [o for o in MODULES if o!='quantetf.cli'] # typer is what the command line is made of
    code = f'import sys, importlib\nfor m in {modules}: importlib.import_module(m)\nprint([o for o in {HEAVY} if o in sys.modules])'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip()=='[]', done.stdout + done.stderr


def test_papermill_starts_without_pandas():
    "Every papermill in the environment imports our plug-in"
    code = ("import sys\nbefore = set(sys.modules)\nimport quantetf.nbrun\nnew = {o.split('.')[0] for o in set(sys.modules)-before}"
        "\nprint(sorted(new - set(sys.stdlib_module_names) - {'quantetf'}))")
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip()=='[]', done.stdout + done.stderr


def test_workflows():
    flows = {f.stem:yaml.safe_load(f.read_text(encoding='utf-8')) for f in (ROOT/'.github'/'workflows').glob('*.yaml')}
    assert set(flows)=={'test', 'production', 'docs'}
    assert flows['test']['jobs']['test']['strategy']['matrix']['python']==['3.11', '3.12', '3.13']
    assert 'schedule' in flows['production'][True] # YAML 1.1 reads `on` as true
    uses = [step.get('uses', '') for step in flows['production']['jobs']['packet']['steps']]
    assert any(o.startswith('actions/upload-artifact') for o in uses)


@pytest.mark.skipif(os.name=='nt', reason='make and sh')
def test_make_refuses_an_old_python(tmp_path):
    for f in 'Makefile', 'pyproject.toml', 'requirements.lock': (tmp_path/f).write_bytes((ROOT/f).read_bytes())
    old = tmp_path/'python3.9'
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2\nexit 1\n')
    old.chmod(0o755)
    done = subprocess.run(['make', 'production', f'PYTHON={old}'], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode==2
    assert 'QuantETF needs Python 3.11 or newer' in done.stderr and 'Python 3.9.2' in done.stderr
    assert not (tmp_path/'.venv').exists()


def test_make_lists_its_targets():
    done = subprocess.run(['make', '-s'], cwd=ROOT, capture_output=True, text=True)
    assert {'production', 'test', 'lab', 'readme', 'lock', 'clean', 'bench'} <= {line.split()[0] for line in done.stdout.splitlines()}
