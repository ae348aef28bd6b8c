"""The workflow and the activities that the SDK workers of the suite run. Activities leave a line in a file for each attempt:
effects are counted outside the server, where no replay can hide them."""

import asyncio
import os
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.common import RetryPolicy

EFFECTS = "ANTIPODE_E2E_EFFECTS"


def note(text):
    """Appends one line to the file of effects; one write, so that lines of several threads don't mix."""
    with open(os.environ[EFFECTS], "a", encoding="utf-8") as file:
        file.write(text + "\n")


def _effect(name):
    info = activity.info()
    note(f"{name} {info.workflow_id} attempt={info.attempt}")
    return info


@activity.defn
async def greet(name: str) -> str:
    _effect("greet")
    return f"hello, {name}"


@activity.defn
async def unsteady(name: str) -> str:
    """Fails twice; the third attempt succeeds."""
    info = _effect("unsteady")
    if info.attempt < 3:
        raise RuntimeError(f"attempt {info.attempt} fails on purpose")
    return f"steady at {info.attempt}: {name}"


@activity.defn
async def tick(number: int) -> int:
    _effect(f"tick-{number}")
    await asyncio.sleep(0.05)
    return number


RETRY = RetryPolicy(initial_interval=timedelta(milliseconds=100), backoff_coefficient=1.0)


@workflow.defn
class Order:
    """Two activities (one fails twice), a timer, a signal that it waits for, a query, a result."""

    def __init__(self) -> None:
        self.stage = "new"
        self.approved_by: str | None = None

    @workflow.run
    async def run(self, name: str) -> str:
        hello = await workflow.execute_activity(
            greet, name, start_to_close_timeout=timedelta(seconds=30), retry_policy=RETRY
        )
        self.stage = "greeted"
        steady = await workflow.execute_activity(
            unsteady, name, start_to_close_timeout=timedelta(seconds=30), retry_policy=RETRY
        )
        self.stage = "steady"
        await workflow.sleep(0.2)
        self.stage = "waiting"
        await workflow.wait_condition(lambda: self.approved_by is not None)
        self.stage = "approved"
        return f"{hello}; {steady}; approved by {self.approved_by}"

    @workflow.signal
    def approve(self, who: str) -> None:
        self.approved_by = who

    @workflow.query
    def where(self) -> str:
        return self.stage


@workflow.defn
class Ticker:
    """A long series of short steps with pauses: its tip stands still often enough to be compared while it works."""

    def __init__(self) -> None:
        self.done = 0
        self.enough = False
        self.heard: list[str] = []

    @workflow.run
    async def run(self, rounds: int) -> list[str]:
        for number in range(rounds):
            if self.enough:
                break
            await workflow.execute_activity(
                tick, number, start_to_close_timeout=timedelta(seconds=30), retry_policy=RETRY
            )
            self.done = number + 1
            await workflow.sleep(0.3)
        return self.heard

    @workflow.signal
    def hear(self, word: str) -> None:
        self.heard.append(word)

    @workflow.signal
    def stop(self) -> None:
        self.enough = True

    @workflow.query
    def rounds(self) -> int:
        return self.done


@workflow.defn
class Patient:
    """Waits for a cancel request and ends as cancelled."""

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: False)


WORKFLOWS = [Order, Ticker, Patient]
ACTIVITIES = [greet, unsteady, tick]
