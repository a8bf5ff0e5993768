"""Every registered kind keeps the promises of a component, and the strategies in configs/ can be built."""
from pathlib import Path

import numpy as np
import pytest

from quantetf.alpha import Rank
from quantetf.core import ConfigError, find_settings, kinds
from quantetf.costs import Proportional
from quantetf.crosssection import Winsorise
from quantetf.data.check import BrokenPromise, answers, check_component, sample_panel
from quantetf.data.view import Fact, Panel
from quantetf.features import Momentum, Volatility
from quantetf.portfolio import TopNEqual
from quantetf.strategy import load_strategy, make_strategy, strategy_config

ROOT = Path(__file__).resolve().parent.parent
IDS = ['BOND', 'CORE', 'EMKT', 'GOLD', 'GONE', 'LATE', 'REIT', 'TECH']
# What a kind needs beyond its defaults
MOM,VOL,RANK = Momentum(126), Volatility(21), Rank('mom')
NEEDED = {('universe', 'static'):dict(tickers=IDS), ('alpha', 'rank'):dict(feature='mom'), ('portfolio', 'top_n_equal'):dict(n=3),
    ('portfolio', 'inverse_volatility'):dict(n=3), ('risk', 'pca'):dict(factors=1), ('costs', 'composite'):dict(parts=(Proportional(),)),
    ('feature', 'beta'):dict(benchmark='CORE'), ('feature', 'correlation'):dict(benchmark='CORE', window=63),
    ('feature', 'residual_momentum'):dict(benchmark='CORE', window=252), ('feature', 'zscore'):dict(of=Winsorise(MOM, .2)),
    ('feature', 'rank'):dict(of=VOL), ('feature', 'winsorise'):dict(of=MOM), ('alpha', 'composite'):dict(weights=dict(mom=1., vol=-1.)),
    ('alpha', 'rank_average'):dict(features=('mom', 'vol')), ('alpha', 'trend_gated'):dict(of=RANK, gate='vol'),
    ('alpha', 'regime_switch'):dict(benchmark='CORE', up_calm=RANK, up_turbulent=Rank('vol'), trend_window=50, memory=63),
    ('portfolio', 'score_proportional'):dict(n=2),
    ('portfolio', 'mean_variance'):dict(risk_aversion=5.), ('portfolio', 'skfolio'):dict(estimator='test_components:Calm', window=60),
    ('portfolio', 'tranches'):dict(of=TopNEqual(2), k=2)}
LISTS = kinds('universe')
NEEDED |= {('universe', 'union'):dict(of=(LISTS['static'](IDS[:3]), LISTS['static'](IDS[2:5]))),
    ('universe', 'intersection'):dict(of=(LISTS['static'](IDS[:5]), LISTS['all']())), ('filter', 'min_dollar_volume'):dict(usd=2e8),
    ('filter', 'top_k'):dict(k=3), ('filter', 'price'):dict(min_usd=70.), ('filter', 'asset_class'):dict(exclude=('bond',)),
    ('filter', 'category'):dict(include=('Large*',)), ('filter', 'region'):dict(include=('US',)),
    ('filter', 'expense_ratio'):dict(max_bps=10.)}
ROLES = 'universe', 'filter', 'feature', 'alpha', 'risk', 'costs', 'portfolio'


def market():
    "The sample market with every fact that a filter asks for"
    p = sample_panel()
    first = str(p.sessions[0])
    values = dict(category='Large Blend', region='US', leverage='1', expense_ratio='0.0009')
    facts = {k:[Fact('CORE', first, first, v), Fact('TECH', str(p.sessions[400]), str(p.sessions[420]), v)] for k,v in values.items()}
    return Panel(p.sessions, p.ids, p._fields, p.version, dict(p._facts) | facts, p.rate, p._events, p.exchange, p.basis)


class Calm:
    "An optimiser with the interface of skfolio: inverse variances"
    def fit(self, X):
        inverse = 1/X.var().to_numpy()
        self.weights_ = inverse/inverse.sum()
        return self


@pytest.mark.parametrize('role,kind', [(role, kind) for role in ROLES for kind in sorted(kinds(role))])
def test_promises(role, kind):
    check_component(kinds(role)[kind](**NEEDED.get((role, kind), {})), market())


@pytest.mark.parametrize('role', ROLES)
def test_other_dates_in_the_view_make_no_difference(role):
    "Rows of a few dates drawn at random are those of many, to the last bit"
    panel,rng = market(),np.random.default_rng(7)
    many = panel.view(panel.sessions[np.sort(rng.choice(np.arange(400, 620), 24, replace=False))])
    for kind in sorted(kinds(role)):
        component = kinds(role)[kind](**NEEDED.get((role, kind), {}))
        whole = answers(component, many)
        for _ in range(2):
            rows = np.sort(rng.choice(24, 5, replace=False))
            for k,v in answers(component, panel.view(many.sessions[rows])).items():
                assert ((v==whole[k][rows]) | (v!=v) & (whole[k][rows]!=whole[k][rows])).all(), (kind, k)


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
