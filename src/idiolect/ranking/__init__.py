"""Ranking: what a search returned, judged; and models that put candidates in a better order."""
