"""The sixteen levels, denser near zero, that two of the IQ formats share. They are part of the file format."""

import numpy as np

LEVELS = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
