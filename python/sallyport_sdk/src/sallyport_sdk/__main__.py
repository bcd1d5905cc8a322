"""Serves an extension by its entry point: python3 -m sallyport_sdk NAME VERSION MODULE:CLASS.

A host starts this file by its path, and then its folder is no place to import from.
"""

import sys

if __name__ == "__main__":
    if not __package__:
        sys.path.pop(0)
    from sallyport_sdk._platform import main

    main(sys.argv[1:])
