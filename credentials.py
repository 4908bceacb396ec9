"""`python -m controlstack.credentials`: list and store the keys of the remote services."""

from __future__ import annotations

import sys

from .api_clients.credentials.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
