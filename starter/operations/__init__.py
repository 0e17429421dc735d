"""Use cases of Bellwire. They take models, return data and raise problems; the command line and HTTP call them."""
