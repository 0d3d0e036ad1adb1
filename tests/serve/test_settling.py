"""Weights are moved beside other work, by a thread that outlives neither them nor their owner."""

import threading
import time

from edgewise.serve import settling


class Owner:
    pass


class Loading:
    def __init__(self, left):
        self.left = left

    def settle(self, nbytes):
        if nbytes:
            self.left = max(0, self.left - 1)
        return self.left > 0


def helpers():
    return [thread for thread in threading.enumerate() if thread.name == "edgewise-settle"]


def gone():
    for thread in helpers():
        thread.join(10)
    return not helpers()


def test_nothing_to_move_starts_no_thread():
    settling.settle_slowly(Owner(), Loading(0))
    assert not helpers()


def test_moves_everything_and_ends(monkeypatch):
    monkeypatch.setattr(settling, "PATIENCE", 0.0)
    owner, loading = Owner(), Loading(5)
    settling.settle_slowly(owner, loading)
    assert gone()
    assert loading.left == 0


def test_ends_with_its_owner(monkeypatch):
    monkeypatch.setattr(settling, "PATIENCE", 0.0)
    monkeypatch.setattr(settling, "SHARE", 0.5)

    class Endless(Loading):
        def settle(self, nbytes):
            time.sleep(0.001 if nbytes else 0)
            return True

    owner, loading = Owner(), Endless(1)
    settling.settle_slowly(owner, loading)
    assert helpers()
    del owner
    assert gone()


def test_now_means_all_of_it():
    loading = Loading(9)
    settling.settle_now(loading)
    assert loading.left == 0
