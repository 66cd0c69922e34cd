"""A module whose import ends badly when it is interrupted, as those of native code may."""

import os
import time

try:
    time.sleep(600)
finally:
    os.abort()
