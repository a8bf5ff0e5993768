"""Trials, reserves and the ids of runs, as a user meets them: through the command, papermill and `run_backtest`."""
import json
from dataclasses import replace

import pytest
import yaml

from quantetf.backtest.run import run_backtest
from quantetf.core import LookaheadError, find_settings
from quantetf.evaluation.ledger import Outcome, outcome_of, record_trial, trials

BASE = dict(universe=dict(kind='static', tickers=['USL1', 'GLD1', 'TEC1', 'EMG1', 'GVM1', 'CRP1'], chosen_on='2006-01-03'),
    features=dict(mom=dict(kind='momentum')), alpha=dict(kind='rank', feature='mom'),
    portfolio=dict(kind='top_n_equal', n=3), benchmark='USL1')
SPAN = dict(start='2016-01-04', end='2018-12-31')


@pytest.fixture
def project(root, data, tmp_path):
    settings = replace(find_settings(root, environ={}), root=tmp_path, data=data, configs=tmp_path/'configs', runs=tmp_path/'runs')
    (settings.configs/'strategies').mkdir(parents=True)
    return settings


def write(project, name, **changes):
    (project.configs/'strategies'/f'{name}.yaml').write_text(yaml.safe_dump(BASE | changes))
    return name


def test_the_same_again_is_no_trial_and_another_idea_is_one(project):
    first = run_backtest(write(project, 'three'), settings=project, **SPAN)
    again = run_backtest('three', settings=project, **SPAN)
    assert again.run_id==first.run_id and not again.run.fresh and len(trials('demo', project))==1
    other = run_backtest(write(project, 'two', portfolio=dict(kind='top_n_equal', n=2)), settings=project, **SPAN)
    assert [first.data['evidence']['recorded'], other.data['evidence']['recorded'], other.data['evidence']['number']]==[1, 2, 2]
    now = run_backtest('three', settings=project, **SPAN)
    assert now.run_id!=first.run_id and (now.data['evidence']['number'], now.data['evidence']['recorded'])==(1, 2)
    assert now.data['nav']==first.data['nav'] and first.folder.is_dir()
    assert 'Trial 1 of at least 2 on demo' in now.report.read_text().replace('\u00a0', ' ')


def test_the_state_of_the_ledger_is_an_input_of_the_run(project):
    run = run_backtest(write(project, 'three'), settings=project, **SPAN)
    state = json.loads((run.folder/'manifest.json').read_text())['inputs']['ledger']
    run_backtest(write(project, 'two', portfolio=dict(kind='top_n_equal', n=2)), settings=project, **SPAN)
    assert trials('demo', project).state!=state==trials('demo', project, lines=state['lines']).state


def test_a_description_a_name_and_a_benchmark_make_no_other_trial(project):
    run_backtest(write(project, 'three'), settings=project, **SPAN)
    run_backtest(write(project, 'renamed', description='Another word for it', benchmark='GLD1'), settings=project, **SPAN)
    found = trials('demo', project)
    assert len(found)==1 and found.lines==1


def test_capital_changes_returns_by_rounding_and_is_no_other_trial(project):
    for capital in (1e4, 1e6, 1e4): run_backtest(write(project, 'three'), settings=project, capital=capital, **SPAN)
    found = trials('demo', project)
    assert len(found)==1 and found.lines==2


def test_a_reserve_is_left_alone_and_a_look_is_counted(project):
    kept = write(project, 'kept', holdout='2018-01-01')
    run = run_backtest(kept, settings=project, start='2016-01-04')
    assert run.data['end']=='2017-12-29' and run.data['evidence']['holdout']['looks']==0
    assert {c['name']:c['status'] for c in run.data['checks']}['holdout']=='PASS'
    assert 'no trial has looked at them' in run.report.read_text()
    look = run_backtest(kept, settings=project, **SPAN)
    h = look.data['evidence']['holdout']
    assert (h['looks'], h['look'])==(1, 1) and h['within']['sessions']==251
    assert {c['name']:c['status'] for c in look.data['checks']}['holdout']=='WARN'
    run_backtest(write(project, 'other', portfolio=dict(kind='top_n_equal', n=2)), settings=project, **SPAN)
    again = run_backtest(kept, settings=project, **SPAN)
    assert (again.data['evidence']['holdout']['looks'], again.data['evidence']['holdout']['look'])==(2, 1)
    assert 'this is look 1 of 2' in again.report.read_text()


def test_what_looks_ahead_is_no_trial(project, monkeypatch):
    def peeked(*args): raise LookaheadError('it peeked')
    monkeypatch.setattr('quantetf.backtest.run._audited', peeked)
    with pytest.raises(LookaheadError, match='it peeked'): run_backtest(write(project, 'three'), settings=project, **SPAN)
    assert len(trials('demo', project))==0


def test_an_account_that_stays_in_cash_is_a_trial_without_a_ratio(project):
    for n in range(1, 6): run_backtest(write(project, f'top{n}', portfolio=dict(kind='top_n_equal', n=n)), settings=project, **SPAN)
    done = run_backtest('top3', settings=project, **SPAN)
    one = outcome_of(done.result)
    record_trial(Outcome(dict(idle=True), one.sessions, done.result.risk_free), done.result.panel.version, project)
    run = run_backtest('top3', settings=project, **SPAN)
    assert run.data['evidence']['over'][0]['trials']==6 and run.data['evidence']['over'][0]['comparable']==5


def test_the_command_lists_trials_and_a_production_run_is_none(call, place, tmp_path):
    assert call('quantetf', 'trials').stdout.startswith('no trials on demo yet')
    assert call('quantetf', 'produce', '2024-06-28').returncode==0
    assert call('quantetf', 'trials', 'demo').stdout.startswith('no trials on demo yet')
    assert call('quantetf', 'backtest', '--start', '2022-01-03', '--end', '2023-12-29').returncode==0
    lines = call('quantetf', 'trials', 'demo').stdout.splitlines()
    assert len(lines)==2 and lines[0].split()[:3]==['number', 'kind', 'name'] and lines[1].split()[1:3]==['backtest', 'demo_momentum']
