"""The public API as raw gRPC: requests and answers are the messages of the API, and the bytes of an answer can be had as
they came over the wire. Tests play clients and workers by hand with it where an SDK would hide what they look at."""

import threading
import uuid

import grpc
from temporalio.api.command.v1 import Command
from temporalio.api.common.v1 import (
    ActivityType,
    Payload,
    Payloads,
    RetryPolicy,
    WorkflowExecution,
    WorkflowType,
)
from temporalio.api.enums.v1 import CommandType, EventType, TaskQueueKind
from temporalio.api.operatorservice.v1 import request_response_pb2 as operator_messages
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import request_response_pb2 as workflow_messages
from google.protobuf.duration_pb2 import Duration

WORKFLOW_SERVICE = "temporal.api.workflowservice.v1.WorkflowService"
OPERATOR_SERVICE = "temporal.api.operatorservice.v1.OperatorService"


def payloads(*texts):
    """JSON payloads the way the SDKs write them."""
    return Payloads(payloads=[Payload(metadata={"encoding": b"json/plain"}, data=text.encode()) for text in texts])


def seconds(amount):
    """A protobuf duration."""
    return Duration(seconds=int(amount), nanos=int(round((amount - int(amount)) * 1e9)))


def event_name(event):
    """`WorkflowExecutionStarted` for EVENT_TYPE_WORKFLOW_EXECUTION_STARTED."""
    return "".join(w.capitalize() for w in EventType.Name(event.event_type).removeprefix("EVENT_TYPE_").split("_"))


class Node:
    """One frontend, asked with raw gRPC."""

    def __init__(self, address, namespace="default"):
        self.address = address
        self.namespace = namespace
        self.channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.initial_reconnect_backoff_ms", 50),
                ("grpc.min_reconnect_backoff_ms", 50),
                ("grpc.max_reconnect_backoff_ms", 200),
                ("grpc.max_receive_message_length", -1),
            ],
        )

    def close(self):
        self.channel.close()

    # -- calls ---------------------------------------------------------------------------------------------------------

    def call_bytes(self, name, timeout=20.0, **fields):
        """Calls an RPC; the answer as bytes."""
        service, messages = WORKFLOW_SERVICE, workflow_messages
        if not hasattr(messages, f"{name}Request"):
            service, messages = OPERATOR_SERVICE, operator_messages
        request = getattr(messages, f"{name}Request")(**fields)
        method = self.channel.unary_unary(f"/{service}/{name}")
        return method(request.SerializeToString(), timeout=timeout, metadata=[("temporal-namespace", self.namespace)])

    def call(self, name, timeout=20.0, **fields):
        """Calls an RPC; the answer as a message."""
        messages = workflow_messages if hasattr(workflow_messages, f"{name}Request") else operator_messages
        return getattr(messages, f"{name}Response").FromString(self.call_bytes(name, timeout, **fields))

    def refused(self, name, timeout=20.0, **fields):
        """Calls an RPC that must fail; the status code and the message."""
        try:
            answer = self.call(name, timeout, **fields)
        except grpc.RpcError as error:
            return error.code(), error.details()
        raise AssertionError(f"{name} was not refused: {answer}")

    # -- client --------------------------------------------------------------------------------------------------------

    def start(self, workflow_id, queue, workflow_type="raw", request_id=None, timeout=20.0, **fields):
        """Starts a workflow; the run id."""
        return self.call(
            "StartWorkflowExecution",
            timeout,
            namespace=self.namespace,
            workflow_id=workflow_id,
            workflow_type=WorkflowType(name=workflow_type),
            task_queue=TaskQueue(name=queue),
            request_id=request_id or str(uuid.uuid4()),
            identity="e2e",
            **fields,
        ).run_id

    def signal(self, workflow_id, name, value='"x"', run_id="", request_id=None, timeout=20.0):
        """Signals a workflow."""
        self.call(
            "SignalWorkflowExecution",
            timeout,
            namespace=self.namespace,
            workflow_execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
            signal_name=name,
            input=payloads(value),
            request_id=request_id or str(uuid.uuid4()),
            identity="e2e",
        )

    def terminate(self, workflow_id, run_id="", reason="e2e"):
        self.call(
            "TerminateWorkflowExecution",
            namespace=self.namespace,
            workflow_execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
            reason=reason,
            identity="e2e",
        )

    def describe(self, workflow_id, run_id=""):
        return self.call(
            "DescribeWorkflowExecution",
            namespace=self.namespace,
            execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
        )

    def history_bytes(self, workflow_id, run_id=""):
        """The answer of GetWorkflowExecutionHistory as it came over the wire. One page holds every history of this suite."""
        return self.call_bytes(
            "GetWorkflowExecutionHistory",
            namespace=self.namespace,
            execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
            maximum_page_size=1000,
        )

    def history(self, workflow_id, run_id=""):
        """All events of a run."""
        events, token = [], b""
        while True:
            answer = self.call(
                "GetWorkflowExecutionHistory",
                namespace=self.namespace,
                execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
                maximum_page_size=1000,
                next_page_token=token,
            )
            events.extend(answer.history.events)
            token = answer.next_page_token
            if not token:
                return events

    def has_run(self, workflow_id, run_id=""):
        """Whether the node knows the run."""
        try:
            self.describe(workflow_id, run_id)
            return True
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                return False
            raise

    def signals(self, workflow_id, run_id=""):
        """Inputs of the signals that stand in the history, in order."""
        return [
            event.workflow_execution_signaled_event_attributes.input.payloads[0].data.decode()
            for event in self.history(workflow_id, run_id)
            if event_name(event) == "WorkflowExecutionSignaled"
        ]

    def names(self, workflow_id, run_id=""):
        """Names of the events, in order."""
        return [event_name(event) for event in self.history(workflow_id, run_id)]

    def versions(self, workflow_id, run_id=""):
        """Versions of the events, in order."""
        return [event.version for event in self.history(workflow_id, run_id)]

    # -- worker --------------------------------------------------------------------------------------------------------

    def poll_workflow(self, queue, timeout=10.0):
        """One poll for a workflow task; none: the poll ended empty."""
        answer = self.call(
            "PollWorkflowTaskQueue",
            timeout,
            namespace=self.namespace,
            task_queue=TaskQueue(name=queue, kind=TaskQueueKind.TASK_QUEUE_KIND_NORMAL),
            identity="e2e",
        )
        return answer if answer.task_token else None

    def poll_activity(self, queue, timeout=10.0):
        """One poll for an activity task; none: the poll ended empty."""
        answer = self.call(
            "PollActivityTaskQueue",
            timeout,
            namespace=self.namespace,
            task_queue=TaskQueue(name=queue, kind=TaskQueueKind.TASK_QUEUE_KIND_NORMAL),
            identity="e2e",
        )
        return answer if answer.task_token else None

    def take_workflow(self, queue, tries=6):
        """A workflow task; fails when none comes."""
        for _ in range(tries):
            task = self.poll_workflow(queue)
            if task:
                return task
        raise AssertionError(f"no workflow task came on {queue} at {self.address}")

    def take_activity(self, queue, tries=6):
        """An activity task; fails when none comes."""
        for _ in range(tries):
            task = self.poll_activity(queue)
            if task:
                return task
        raise AssertionError(f"no activity task came on {queue} at {self.address}")

    def complete_workflow_task(self, token, commands=()):
        return self.call(
            "RespondWorkflowTaskCompleted",
            namespace=self.namespace,
            task_token=token,
            commands=commands,
            identity="e2e",
        )

    def step(self, queue, *commands):
        """Takes one workflow task and completes it with the commands; the task."""
        task = self.take_workflow(queue)
        self.complete_workflow_task(task.task_token, commands)
        return task

    def complete_activity(self, token, result='"done"'):
        return self.call(
            "RespondActivityTaskCompleted",
            namespace=self.namespace,
            task_token=token,
            result=payloads(result),
            identity="e2e",
        )

    def fail_activity(self, token, message="on purpose"):
        from temporalio.api.failure.v1 import ApplicationFailureInfo, Failure

        return self.call(
            "RespondActivityTaskFailed",
            namespace=self.namespace,
            task_token=token,
            failure=Failure(message=message, application_failure_info=ApplicationFailureInfo(type="OnPurpose")),
            identity="e2e",
        )


# -- commands ----------------------------------------------------------------------------------------------------------


def schedule_activity(
    activity_id, queue, start_to_close=60.0, schedule_to_start=0.0, schedule_to_close=600.0, max_attempts=0, interval=0.1
):
    """ScheduleActivityTask."""
    attributes = dict(
        activity_id=activity_id,
        activity_type=ActivityType(name="raw-activity"),
        task_queue=TaskQueue(name=queue),
        start_to_close_timeout=seconds(start_to_close),
        schedule_to_close_timeout=seconds(schedule_to_close),
        retry_policy=RetryPolicy(
            initial_interval=seconds(interval), backoff_coefficient=1.0, maximum_attempts=max_attempts
        ),
    )
    if schedule_to_start:
        attributes["schedule_to_start_timeout"] = seconds(schedule_to_start)
    return Command(
        command_type=CommandType.COMMAND_TYPE_SCHEDULE_ACTIVITY_TASK,
        schedule_activity_task_command_attributes=attributes,
    )


def start_timer(timer_id, duration):
    """StartTimer."""
    return Command(
        command_type=CommandType.COMMAND_TYPE_START_TIMER,
        start_timer_command_attributes=dict(timer_id=timer_id, start_to_fire_timeout=seconds(duration)),
    )


def complete_workflow(result='"result"'):
    """CompleteWorkflowExecution."""
    return Command(
        command_type=CommandType.COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION,
        complete_workflow_execution_command_attributes=dict(result=payloads(result)),
    )


def continue_as_new(queue, workflow_type="raw"):
    """ContinueAsNewWorkflowExecution."""
    return Command(
        command_type=CommandType.COMMAND_TYPE_CONTINUE_AS_NEW_WORKFLOW_EXECUTION,
        continue_as_new_workflow_execution_command_attributes=dict(
            workflow_type=WorkflowType(name=workflow_type), task_queue=TaskQueue(name=queue), input=payloads('"again"')
        ),
    )


class Listener:
    """Polls a workflow queue and an activity queue of a node all the time and keeps what it gets: the witness that a
    passive region executes nothing."""

    def __init__(self, address, queue, namespace="default", poll_timeout=4.0):
        self.got = []
        self.polls_ended = 0
        self.errors = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._listen, args=(address, namespace, kind, queue, poll_timeout), daemon=True)
            for kind in ("workflow", "activity")
        ]
        for thread in self._threads:
            thread.start()

    def _listen(self, address, namespace, kind, queue, poll_timeout):
        node = Node(address, namespace)
        poll = node.poll_workflow if kind == "workflow" else node.poll_activity
        while not self._stop.is_set():
            try:
                task = poll(queue, timeout=poll_timeout)
                if task:
                    self.got.append((kind, task))
                self.polls_ended += 1
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.DEADLINE_EXCEEDED:
                    self.errors.append(f"{kind}: {error.code()} {error.details()}")
                    self._stop.wait(0.2)
        node.close()

    def stop(self):
        """Ends the polls; fails when a poll was refused."""
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        assert not self.errors, self.errors


