"""Weights of PyPortfolioOpt, from covariances and expected returns on stdin; runs in `.peers`, see test_portfolio.py."""
import json
import sys

import numpy as np
import pandas as pd
from pypfopt import EfficientFrontier, HRPOpt

EXACT = dict(solver='CLARABEL', solver_options=dict(tol_gap_abs=1e-13, tol_gap_rel=1e-13, tol_feas=1e-13))


def frontier(mu, cov, cap): return EfficientFrontier(mu, cov, weight_bounds=(0, cap), **EXACT)


def weights(job, mu, cov):
    e = frontier(mu, cov, job['cap'])
    if job['kind']=='minimum_variance': e.min_volatility()
    elif job['kind']=='risk_aversion': e.max_quadratic_utility(job['value'])
    elif job['kind']=='target_volatility': e.efficient_risk(job['value'])
    else: return HRPOpt(cov_matrix=pd.DataFrame(cov)).optimize().values()
    return e.weights


given = json.load(sys.stdin)
out = [[list(map(float, weights(job, np.array(given['mu']), np.array(cov)))) for cov in given['covs']] for job in given['jobs']]
print(json.dumps(out))
