"""The page: parse a request, call the service, answer; who may ask, and where it is served."""
