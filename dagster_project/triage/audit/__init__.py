"""Is a candidate clean? Leaks, shortcuts, recomputation, scorecards per team."""
