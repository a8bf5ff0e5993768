"""Strategy files that cannot be meant: each is refused when it is read, by file, key and what would do."""
import pytest

from quantetf.core import ConfigError, parse_yaml
from quantetf.strategy import make_strategy

BASE = '''
universe: {kind: static, tickers: [BOND, CORE, EMKT, GOLD, TECH]}
features: {mom: {kind: momentum, lookback: 63, skip: 5}, vol: {kind: volatility, window: 21}}
alpha: {kind: rank, feature: mom}
portfolio: {kind: top_n_equal, n: 3}
risk: {kind: sample}
'''
# What is written -> what is said about it
WRONG = {
    'schedule: {kind: weekly, day: 9}':'day must be .* 1 to 5 or -1 to -5, got 9',
    'schedule: {kind: monthly, day: 25}':'1 to 23',
    'schedule: {kind: quarterly, day: 0}':'1 to 66',
    'schedule: {kind: monthly, day: true}':'schedule.day: True will not do',
    'schedule: {kind: explicit, on: [tomorrow]}':"'tomorrow' is not a date",
    'costs: {kind: proportional, bps: -5}':'bps must be from 0 to 1000',
    'costs: {kind: composite, parts: {kind: proportional}}':'costs.parts: expected a list, even of one',
    'universe: {kind: static, tickers: [BOND, BOND, CORE]}':'BOND more than once',
    'universe: {kind: static, tickers: [BOND, CORE, GOLD], chosen_on: lately}':'chosen_on must be a date',
    'universe: {kind: static, tickers: [BOND, CORE, GOLD], filters: {kind: min_age}}':'universe.filters: expected a list, even of one',
    'universe: {kind: static, file: universes/none.yaml}':'universe.file: .*none.yaml does not exist',
    'universe: {kind: union, of: [{kind: all}]}':'two universes or more',
    'universe: {kind: all, filters: [{kind: top_k, k: 2}]}':'3 funds are wanted, and the filter top_k takes 2',
    'features: {mom: {kind: momentm}}':"did you mean 'momentum'",
    'features: {mom: {kind: momentum, lookback: 21, skip: 63}}':'need 0 <= skip < lookback',
    'features: {mom: {kind: volatility, min_obs: .nan}}':'features.mom.min_obs: .nan is not a number',
    'features: {mom: {kind: "nofile:Carry"}}':'nofile.py belongs into the folder of settings.ini',
    'alpha: {kind: trend_gated, of: {kind: rank, feature: mom}, gate: nope}':"alpha.gate: no feature 'nope'",
    'alpha: {kind: trend_gated, of: [{kind: rank, feature: mom}], gate: mom}':'alpha.of: expected one alpha, got a list',
    'alpha: {kind: trend_gated, of: {kind: rank, feature: mom}, gate: mom, above: .nan}':'alpha.above: .nan is not a number',
    'alpha: {kind: rank_average, features: [mom], ascending: [vol]}':'ascending: vol is none of',
    'alpha:':'alpha: expected a mapping with a `kind`',
    'portfolio: {kind: top_n_equal, n: 9}':'9 funds are wanted, the list has 5',
    'portfolio: {kind: top_n_equal, n: 3, fewer: csh}':"did you mean 'cash'",
    'portfolio: {kind: minimum_variance, fewer: cash}':'fewer: unknown key',
    'portfolio: {kind: top_n_equal, n: 3, constraints: {max_weight: 0.2}}':'n=3 funds of max_weight=0.2',
    'portfolio: {kind: top_n_equal, n: 3, overlays: {kind: drawdown_control}}':'portfolio.overlays: expected a list, even of one',
    'portfolio: {kind: top_n_equal, n: 3, overlays: [{kind: volatility_target, annual: 12}]}':'0.1 is 10 %',
    'portfolio: {kind: inverse_volatility, n: 3, feature: vool}':"did you mean 'vol'",
    'portfolio: {kind: minimum_variance, constraints: {max_beta: 0.5}}':'give both or neither',
    'portfolio: {kind: minimum_variance, constraints: {max_beta: .nan, benchmark: CORE}}':'max_beta: .nan is not a number',
    'portfolio: {kind: minimum_variance, constraints: {cash_buffer: 0.1, max_cash: 0.05}}':'max_cash must be from cash_buffer',
    'portfolio: {kind: minimum_variance, constraints: {funds: {BOND: [0.6, 1], CORE: [0.6, 1]}}}':'funds come to 1.2',
    'portfolio: {kind: minimum_variance, n: 4, constraints: {min_weight: 0.3}}':'n=4 funds of min_weight=0.3',
    'portfolio: {kind: mean_variance}':'give risk_aversion or target_volatility',
    'portfolio: {kind: hrp, constraints: {groups: [{fact: asset_class, value: bond}]}}':'constraints.groups: unknown key',
    'portfolio: {kind: tranches, k: 3, of: {kind: top_n_equal, n: 2, buffer: 1}}':'cannot look at the account',
    'portfolio: {kind: skfolio, estimator: nope}':'is not module:Class',
    'execution: {lot: 10, shares: fractional}':'lots of 10 shares need shares: whole',
    'execution: {participation: 25}':'execution.participation',
    'benchmark: {weights: {CORE: 0.7, BOND: 0.4}}':'sum to 1.1, not to 1',
    'accept_mixed: AGG':'expected a list of tickers',
    'portfolios: {kind: hrp}':"did you mean 'portfolio'",
}
GROUPS = '[{fact: asset_class, value: bond, min: 0.7}, {fact: asset_class, value: equity, min: 0.7}]'
WRONG[f'portfolio: {{kind: minimum_variance, constraints: {{groups: {GROUPS}}}}}'] = 'groups of asset_class come to 1.4'


def test_what_they_are_held_against_is_right(): make_strategy(parse_yaml(BASE.encode(), 'base.yaml'), 'base')


@pytest.mark.parametrize('written', WRONG)
def test_refused_by_name(written):
    config = parse_yaml(BASE.encode(), 'base.yaml') | parse_yaml(written.encode(), 'wrong.yaml')
    with pytest.raises(ConfigError, match=f'(?s)^wrong.yaml.*{WRONG[written]}'): make_strategy(config, 'wrong', where='wrong.yaml')
