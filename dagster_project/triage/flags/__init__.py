"""Floods and visibility-only rules: found, and excluded in one place."""
