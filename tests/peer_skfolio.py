"""Answers of skfolio, from covariances and expected returns on stdin; runs in `.peers`, see test_portfolio.py.

Its first argument is a folder of packages to fall back on: what QuantETF needs and `.peers` does not have. So the bridge to skfolio is
tried where skfolio is, on the sample market.
"""
import json
import sys
import warnings

import numpy as np
import pandas as pd

sys.path.append(sys.argv[1])
from skfolio.cluster import HierarchicalClustering, LinkageMethod  # noqa: E402
from skfolio.datasets import load_sp500_dataset  # noqa: E402
from skfolio.distance import CovarianceDistance  # noqa: E402
from skfolio.moments import OAS, BaseCovariance, BaseMu, LedoitWolf  # noqa: E402
from skfolio.optimization import HierarchicalRiskParity, MeanRisk, ObjectiveFunction, RiskBudgeting  # noqa: E402
from skfolio.prior import EmpiricalPrior  # noqa: E402
from skfolio.seriation import HierarchicalSeriation  # noqa: E402

EXACT = dict(tol_gap_abs=1e-13, tol_gap_rel=1e-13, tol_feas=1e-13)
warnings.filterwarnings('ignore', message='Solution may be inaccurate') # Than 1e-13


class GivenCovariance(BaseCovariance):
    def __init__(self, values=None, nearest=False, higham=False, higham_max_iteration=100):
        super().__init__(nearest=nearest, higham=higham, higham_max_iteration=higham_max_iteration)
        self.values = values
    def fit(self, X, y=None):
        self.covariance_ = np.asarray(self.values)
        return self


class GivenMu(BaseMu):
    def __init__(self, values=None): self.values = values
    def fit(self, X, y=None):
        self.mu_ = np.asarray(self.values)
        return self


def weights(job, mu, cov):
    prior = EmpiricalPrior(mu_estimator=GivenMu(mu), covariance_estimator=GivenCovariance(cov))
    names = [f'F{k:03d}' for k in range(len(mu))]
    X = pd.DataFrame(np.random.default_rng(0).multivariate_normal(mu, cov, 500), columns=names) # Its moments are not looked at
    kind,solver = job['kind'],dict(solver_params=EXACT, prior_estimator=prior)
    if kind=='minimum_variance': o = MeanRisk(max_weights=job['cap'], **solver)
    elif kind=='risk_aversion':
        o = MeanRisk(ObjectiveFunction.MAXIMIZE_UTILITY, risk_aversion=job['value']/2, max_weights=job['cap'], **solver)
    elif kind=='target_volatility':
        o = MeanRisk(ObjectiveFunction.MAXIMIZE_RETURN, max_standard_deviation=job['value'], max_weights=job['cap'], **solver)
    elif kind=='risk_parity': o = RiskBudgeting(risk_budget=job['value'], **solver)
    else:
        tree = HierarchicalSeriation(hierarchical_clustering_estimator=HierarchicalClustering(linkage_method=LinkageMethod.SINGLE),
            optimal_ordering=False)
        distance = CovarianceDistance(GivenCovariance(cov))
        o = HierarchicalRiskParity(prior_estimator=prior, distance_estimator=distance, seriation_estimator=tree)
    return np.asarray(o.fit(X).weights_, float).tolist()


def bridge():
    "Weights of the portfolio rule `skfolio` and of our own, from the same returns"
    from quantetf.data.check import sample_panel
    from quantetf.optimise import MinimumVariance, RiskParity, Skfolio
    from quantetf.portfolio import Signals
    from quantetf.risk import Sample
    from quantetf.universe import Universe
    panel = sample_panel()
    view,five = panel.view('2024-06-28'),np.isin(panel.ids, ['BOND', 'CORE', 'EMKT', 'GOLD', 'TECH'])[None]
    one = Signals(view, Universe(five, np.where(five, '', 'out')), {}, np.where(five, 1., np.nan), Sample(126, .8))
    def both(name, rule):
        theirs = Skfolio(f'skfolio.optimization:{name}', dict(solver_params=EXACT), 126, .8).construct(one)
        return dict(status=theirs.status+theirs.reason, theirs=theirs.weights[0].tolist(), ours=rule.construct(one).weights[0].tolist())
    return dict(MeanRisk=both('MeanRisk', MinimumVariance()), RiskBudgeting=both('RiskBudgeting', RiskParity()),
        EqualWeighted=Skfolio('skfolio.optimization:EqualWeighted', window=126, min_obs=.8).construct(one).weights[0].tolist())


given = json.load(sys.stdin)
mu,covs = np.array(given['mu']),[np.array(o) for o in given['covs']]
out = dict(weights=[[weights(job, mu, cov) for cov in covs] for job in given['jobs']], bridge=bridge())
r = load_sp500_dataset()['2014-01-01':].pct_change().dropna()
out['shrinkage'] = dict(shape=r.shape, ledoit_wolf=float(LedoitWolf().fit(r).shrinkage_), oas=float(OAS().fit(r).shrinkage_))
print(json.dumps(out))
