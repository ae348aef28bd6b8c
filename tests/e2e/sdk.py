"""Unmodified Temporal SDK clients and workers in threads of their own, so that a test can look at the cluster from outside
while they work."""

import asyncio
import threading
import uuid

from temporalio.client import Client
from temporalio.worker import Worker

import workflows


class Sdk:
    """An SDK client of one address, in an event loop in a thread; optionally workers beside it."""

    def __init__(self, address, namespace="default"):
        self.address = address
        self.namespace = namespace
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._workers = []
        self.client = self.do(Client.connect(address, namespace=namespace))

    def do(self, coroutine, timeout=90):
        """Runs a coroutine of the SDK to its end."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout)

    def begin(self, coroutine):
        """Starts a coroutine; a future."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def work(self, queue):
        """Starts a worker on the queue."""

        async def start():
            worker = Worker(
                self.client,
                task_queue=queue,
                workflows=workflows.WORKFLOWS,
                activities=workflows.ACTIVITIES,
                identity=f"e2e-{uuid.uuid4().hex[:6]}@{self.address}",
            )
            return worker, asyncio.ensure_future(worker.run())

        self._workers.append(self.do(start()))
        return self

    def start(self, workflow, argument, workflow_id, queue):
        """Starts a workflow; its handle."""
        return self.do(self.client.start_workflow(workflow, argument, id=workflow_id, task_queue=queue))

    def handle(self, workflow_id, run_id=None):
        return self.client.get_workflow_handle(workflow_id, run_id=run_id)

    def query(self, workflow_id, query):
        return self.do(self.handle(workflow_id).query(query))

    def signal(self, workflow_id, signal, *arguments):
        self.do(self.handle(workflow_id).signal(signal, args=list(arguments)))

    def result(self, workflow_id, timeout=90):
        return self.do(self.handle(workflow_id).result(), timeout)

    def close(self):
        async def stop():
            for worker, running in self._workers:
                await worker.shutdown()
                await asyncio.wait([running])

        try:
            self.do(stop())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(30)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
