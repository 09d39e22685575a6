"""A plugin of pytest that prints how each case ended, on a line of its own: `OUTCOME passed NAME`."""

import pytest

worst = {}
RANK = ["passed", "skipped", "failed"]


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report):
    so_far = worst.setdefault(report.nodeid, "passed")
    worst[report.nodeid] = max(so_far, report.outcome, key=RANK.index)
    if report.failed:
        reason = str(report.longrepr).strip().splitlines()
        print(f"\nWHY {report.nodeid}: {reason[-1] if reason else 'no reason given'}", flush=True)
    if report.when == "teardown":
        print(f"\nOUTCOME {worst.pop(report.nodeid)} {report.nodeid}", flush=True)
