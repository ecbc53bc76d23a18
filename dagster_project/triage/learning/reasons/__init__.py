"""Why an alert got its score: evidence with counts, in words that a triager can check.

Contributions to the log-odds are added up by subject (`subjects.py`); each subject becomes a claim with the counts that
prove it (`claims.py`), from the alert's history or from the training (`counts.py`), and is said in words (`words.py`).

Belongs here: everything between contributions and sentences.
Does not belong here: computing contributions or probabilities (`learning/model.py`).
"""
