"""``fedgrpo curate``: the rules of :mod:`fedgrpo.data.curation`, the policy that says what is hard,
and the page.
"""
