"""Attention and low-rank products by hand, where what the libraries have is too slow or lets one
row reach another.
"""
