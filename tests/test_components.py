"""Every registered kind keeps the promises of a component, and the strategies in configs/ can be built."""
from pathlib import Path

import pytest

from quantetf.core import ConfigError, find_settings, kinds
from quantetf.data.check import BrokenPromise, check_component, sample_panel
from quantetf.portfolio import TopNEqual
from quantetf.strategy import load_strategy, make_strategy, strategy_config

ROOT = Path(__file__).resolve().parent.parent
IDS = ['BOND', 'CORE', 'EMKT', 'GOLD', 'GONE', 'LATE', 'REIT', 'TECH']
# What a kind needs beyond its defaults
NEEDED = {('universe', 'static'):dict(tickers=IDS), ('alpha', 'rank'):dict(feature='mom'), ('portfolio', 'top_n_equal'):dict(n=3),
    ('portfolio', 'inverse_volatility'):dict(n=3), ('portfolio', 'score_proportional'):dict(n=2),
    ('portfolio', 'mean_variance'):dict(risk_aversion=5.), ('portfolio', 'skfolio'):dict(estimator='test_components:Calm', window=60),
    ('portfolio', 'tranches'):dict(of=TopNEqual(2), k=2)}
ROLES = 'universe', 'filter', 'feature', 'alpha', 'risk', 'costs', 'portfolio'


class Calm:
    "An optimiser with the interface of skfolio: inverse variances"
    def fit(self, X):
        inverse = 1/X.var().to_numpy()
        self.weights_ = inverse/inverse.sum()
        return self


@pytest.mark.parametrize('role,kind', [(role, kind) for role in ROLES for kind in sorted(kinds(role))])
def test_promises(role, kind):
    check_component(kinds(role)[kind](**NEEDED.get((role, kind), {})), sample_panel())


def test_a_component_that_breaks_them_is_caught():
    class Tomorrow:
        def compute(self, view, universe): return view._panel._fields['tr'][view._rows+1]
    with pytest.raises(BrokenPromise, match='poisoning the future'): check_component(Tomorrow(), sample_panel())


@pytest.mark.parametrize('name', sorted(o.stem for o in (ROOT/'configs'/'strategies').glob('*.yaml')))
def test_strategies_of_the_project(name):
    settings = find_settings(ROOT, environ={})
    strategy = load_strategy(name, settings)
    assert make_strategy(strategy_config(strategy), name, settings.configs)==strategy
    assert strategy.description and strategy.benchmark


def test_an_unknown_strategy_is_named_with_its_neighbour():
    settings = find_settings(ROOT, environ={})
    with pytest.raises(ConfigError, match="did you mean 'core20_momentum'"): load_strategy('core20_momentun', settings)
