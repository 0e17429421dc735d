"""`python -m docs.generator`: writes docs/reference."""

from docs.generator.pages import write

if __name__ == "__main__":
    write()
