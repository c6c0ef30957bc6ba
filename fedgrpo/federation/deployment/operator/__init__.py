"""The operator's machine: a gateway to the outside, and behind it a SuperLink that asks everybody
for a secret, and an executor that runs the installed server app.
"""
