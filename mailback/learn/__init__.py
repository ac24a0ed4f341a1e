"""Learning from diagnostics: the model of the vote, and templates of what no rule names.

Training needs scikit-learn (extra `learn`); whatever else is here does not, and the daemon imports none of it.
"""
