"""Leakage of single columns beyond how well they separate outcomes: target encodings, facts filled in later."""
