"""Learning: both models trained and measured, and templates of what no rule names.

`samples`, `training`, `evaluation` are about diagnostics, `reply_samples`, `reply_training`, `reply_evaluation` about
intents. Training needs scikit-learn (extra `learn`); whatever else is here does not, and the daemon imports none of it.
"""
