"""Great Expectations: suites, their validation, results, flags and Data Docs."""
