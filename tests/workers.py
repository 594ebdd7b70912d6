"""How pytest-xdist hands tests to its workers, so that one that dies is one failure.

A plugin of pytest: what tests/conftest.py imports from here, or `-p tests.workers`.
"""

import pytest
from xdist.scheduler import LoadFileScheduling

# By what their tests take.
LONG = (
    "test_train",
    "test_evaluate",
    "test_parity",
    "test_sharding",
    "test_pipeline",
    "test_models",
    "test_clip",
    "test_identity",
    "test_glscl",
    "test_families",
    "test_steps",
    "test_videoprism",
    "test_report",
    "test_prepare",
    "test_inherited",
    "test_python",
)


class Scheduling(LoadFileScheduling):
    """As `--dist loadfile`; what a dead worker left undone is done by the others.

    That of xdist 3.8 hands on all that the dead one was ever given, the test that killed it and
    files that are done among it. The next worker dies of that test, or waits for ever for the end
    of a file that has nothing to run.
    """

    def remove_node(self, node):
        work, died_in = self.assigned_work[node], None
        for tests in work.values():
            for test, done in tests.items():
                if died_in is None and not done:
                    died_in = test
        if died_in is not None:
            work[self._split_scope(died_in)][died_in] = True
        for file in [file for file, tests in work.items() if all(tests.values())]:
            del work[file]
        super().remove_node(node)
        return died_in

    def _reschedule(self, node):
        # One that replaces a dead worker is asked again when it has collected the tests.
        if node not in self.registered_collections:
            return
        # A worker begins a test when it knows the next one: one test alone would never begin.
        while self.workqueue and not node.shutting_down and self._waiting(node) <= 2:
            self._assign_work_unit(node)
        super()._reschedule(node)

    def _waiting(self, node) -> int:
        return self._pending_of(self.assigned_work[node])


def pytest_collection_modifyitems(items):
    """Files of half a minute and more first: a worker that began one last would be waited for."""
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    config.option.loadscopereorder = False  # Which would begin with the most tests.
    return Scheduling(config, log)
