"""One lock for whatever has Python parse text: headers of arrays, which NumPy reads so, and literals.

Python 3.11 counts the depth of what all threads parse as one. Where garbage collection runs Python code in between, as
test and notebook tools have it, a sound text fails at random: "AST constructor recursion depth mismatch" (CPython issue
106905).
"""

from __future__ import annotations

import threading

ONE_AT_A_TIME = threading.Lock()
