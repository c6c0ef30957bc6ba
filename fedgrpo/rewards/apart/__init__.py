"""Users' rewards in a process of their own, where no privacy is at stake: what loops, dies or takes
all memory there costs one prompt's group and not the run.
"""
