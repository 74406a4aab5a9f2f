"""`python -m pipeline` is `fineclip`."""

from fineclip import run

if __name__ == "__main__":
    run()
