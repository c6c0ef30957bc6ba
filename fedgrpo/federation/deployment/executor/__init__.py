"""What takes the place of Flower's executor on both sides: it runs what is installed, and unpacks
nothing that came with a run.
"""
