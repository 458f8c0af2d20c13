"""Judging pairs of answers, and how well a judge agrees with people."""
