"""A local HTTP API for a model, and a page to try it; needs what the extra ``serve`` installs.

Nothing else in the runtime imports this package.
"""
