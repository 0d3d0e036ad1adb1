"""L9: trains the models that travel inside the package. Needs `pip install 'edgewise[train]'`; never used at run time."""
