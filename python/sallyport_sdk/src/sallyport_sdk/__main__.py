"""Serves an extension by its entry point: python3 -m sallyport_sdk NAME VERSION MODULE:CLASS."""

import sys

from ._platform import main

if __name__ == "__main__":
    main(sys.argv[1:])
