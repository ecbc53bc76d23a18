"""Which model scores: the gate, the decision, recalibration and succession."""
