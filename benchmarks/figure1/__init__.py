"""The figure of GLSCL's paper, R@1 against cost, with this project's heads on the demo's data."""
