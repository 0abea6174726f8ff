"""How good an estimator is, measured by training again: ground truth, LDS, counterfactuals, screening."""
