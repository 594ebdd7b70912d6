"""Similarity heads of GLSCL and its peers, each written from its paper's formulas.

A head takes the features of A texts and B videos and gives their scores [A,B]. Beside it stands
how many multiply-adds its matrix products take, derived by hand.
"""
