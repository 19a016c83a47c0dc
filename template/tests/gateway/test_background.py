"""Background work: a crash is logged, and the work continues."""

import pytest

from gateway.alerts.alerts import Alerts
from gateway.ledger.sweeper import Sweeper
from gateway.pipeline.runner import Runner
from gateway.pipeline.stop_watcher import StopWatcher
from tests.fixtures.service import Start
from tests.support import eventually

LOOKS = [
    (StopWatcher, "poll"),
    (Sweeper, "sweep"),
    (Alerts, "notify"),
    (Alerts, "post"),
    (Runner, "cancel_erased"),
]


@pytest.mark.parametrize(("owner", "name"), LOOKS)
async def test_background_work_continues_after_a_crash(
    start: Start, monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    poll, looks = getattr(owner, name), 0

    async def crash_once(self: object) -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise ArithmeticError("the reason")
        await poll(self)

    monkeypatch.setattr(owner, name, crash_once)
    service = await start()

    async def looked_again() -> bool:
        return looks > 1

    await eventually(looked_again)
    assert "ArithmeticError: the reason" in service.log
    assert (await service.client().get("/readyz")).status_code == 200
