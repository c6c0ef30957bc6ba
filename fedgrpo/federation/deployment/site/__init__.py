"""A site's machine: a node that listens at no port, started only where nothing is wrong, and an
executor that runs the app which the site has installed.
"""
