"""What the tests of members that go by the clock share."""

import pytest

from edgewise.decode.curve import Late, VerifyCurve


@pytest.fixture
def cheap_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes take 1 s and 0.01 s a row and drafts 0.01 s, whatever the clock says."""
    saw = VerifyCurve.saw

    def late(self: Late, value: float) -> None:
        self.value = value if value >= 1 else 0.01

    monkeypatch.setattr(VerifyCurve, "saw", lambda self, rows, seconds: saw(self, rows, 1 + 0.01 * rows))
    monkeypatch.setattr(Late, "saw", late)
