"""Other libraries' per-example gradients beside das's, on the same network, pictures and timesteps, in one run."""
