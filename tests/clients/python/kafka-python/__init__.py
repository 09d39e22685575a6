# Before Python's own package of this name.
