"""L9: trains the models that travel inside the package. Needs the extra `train`; never used at run time."""
